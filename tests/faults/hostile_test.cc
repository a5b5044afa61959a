// Model files from strangers: cut anywhere, with flipped bits. Each is refused with the file's name, or gives a model
// whose weights are all finite; memory stays within twice the file and 64 MiB.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "model/checkpoint.h"
#include "model/error.h"
#include "model/formats/llama2c.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "runtime/arena.h"
#include "tests/support/memory_files.h"
#include "tests/support/model_files.h"

namespace lanewise::testing {
namespace {

struct Hostile {
  std::string path;  // of the file that is damaged
  std::string open;  // what is opened
  std::string good;
};

// A folder without a manifest: nothing but the formats' own checks.
void AddBareFolder(MemoryFiles& files) {
  const auto disk = model::MakeSystemFiles();
  const model::ModelFile seed = model::OpenModel(*disk, Golden("slot_rnn/char.bin"));
  std::vector<model::TensorSource> tensors;
  for (const model::NamedTensor& tensor : seed.tensors) tensors.push_back(model::MakeSource(tensor));
  model::CheckpointContent content;
  content.config = seed.config;
  content.tokenizer = seed.tokenizer;
  content.weights = tensors;
  model::SaveModelFolder(files, "bare", content, 1, std::nullopt);
  files.RemoveFile("bare/MANIFEST.json");
}

std::vector<Hostile> HostileFiles(MemoryFiles& files) {
  std::vector<Hostile> list;
  for (const char* name : {"slot_rnn/char.bin", "slot_rnn/char_v1.bin", "slot_rnn/word.bin", "slot_rnn/stress.bin",
                           "llama/llama_gqa_tied.bin", "llama/llama_mha_untied.bin"}) {
    list.push_back({"m.bin", "m.bin", ReadWhole(Golden(name))});
  }
  const auto disk = model::MakeSystemFiles();
  model::WriteLlama2c(files, "v1.bin", model::OpenModel(*disk, Golden("llama/llama_gqa_tied.bin")), 1);
  list.push_back({"v1.bin", "v1.bin", files.Content("v1.bin")});
  AddBareFolder(files);
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    const std::string path = model::JoinPath("bare", name);
    list.push_back({path, "bare", files.Content(path)});
  }
  return list;
}

// Opens as the program does. True where it is a model, whose weights are finite then.
bool Loads(MemoryFiles& files, const Hostile& hostile, const std::string& bytes) {
  files.SetContent(hostile.path, bytes);
  try {
    const model::ModelFile file = model::OpenModel(files, hostile.open);
    const auto model = model::MakeModel(file.config, file.path);
    // What the sizes claim must be in the file before memory is taken for it.
    std::vector<float> weights(model->params().buffer_size());
    model::LoadWeights(file, model->params(), weights);
    for (const float w : weights) REQUIRE(std::isfinite(w));
    return true;
  } catch (const model::InputError& error) {
    CHECK(Contains(error.what(), hostile.open));
    return false;
  }
}

TEST_CASE("truncated files are refused") {
  MemoryFiles files;
  const size_t before = runtime::PeakResidentBytes();
  size_t largest = 0, cuts = 0;
  for (const Hostile& hostile : HostileFiles(files)) {
    CAPTURE(hostile.path);
    REQUIRE(Loads(files, hostile, hostile.good));
    largest = std::max(largest, hostile.good.size());
    // A text file without its last newline is whole.
    const size_t end = hostile.good.size() - (hostile.path.ends_with(".json") ? 1 : 0);
    for (size_t size = 0; size < end; size += size < 4096 ? 1 : 499) {
      CAPTURE(size);
      CHECK_FALSE(Loads(files, hostile, hostile.good.substr(0, size)));
      ++cuts;
    }
    for (size_t size = end - std::min<size_t>(end, 64); size < end; ++size) {
      CHECK_FALSE(Loads(files, hostile, hostile.good.substr(0, size)));
    }
    files.SetContent(hostile.path, hostile.good);
  }
  CHECK(runtime::PeakResidentBytes() - before < 2 * largest + (size_t{64} << 20));
  MESSAGE(cuts, " truncations");
}

TEST_CASE("random bit flips give an error that names the file, or finite weights") {
  MemoryFiles files;
  const size_t before = runtime::PeakResidentBytes();
  std::mt19937_64 random(9);
  size_t largest = 0, loaded = 0, refused = 0;
  for (const Hostile& hostile : HostileFiles(files)) {
    CAPTURE(hostile.path);
    largest = std::max(largest, hostile.good.size());
    for (int i = 0; i < 2000; ++i) {
      std::string bad = hostile.good;
      // Half of them where the counts are.
      const size_t range = i % 2 == 0 ? std::min<size_t>(2048, bad.size()) : bad.size();
      const size_t bit = random() % (range * 8);
      CAPTURE(bit);
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
      const bool loads = Loads(files, hostile, bad);
      (loads ? loaded : refused) += 1;
      // Tensors carry checksums in our own format.
      if (hostile.path.ends_with(".safetensors")) CHECK_FALSE(loads);
    }
    files.SetContent(hostile.path, hostile.good);
  }
  CHECK(runtime::PeakResidentBytes() - before < 2 * largest + (size_t{64} << 20));
  MESSAGE(refused, " refused, ", loaded, " loaded with finite weights");
}

TEST_CASE("tokenizer.bin with flipped bits is refused or works") {
  std::string good;
  const auto put = [&](auto value) { good.append(reinterpret_cast<const char*>(&value), sizeof value); };
  put(uint32_t{9});
  constexpr uint32_t kTokens = 300;
  for (uint32_t i = 0; i < kTokens; ++i) {
    const std::string token = "t" + std::to_string(i * 7919 % 1000);
    put(-static_cast<float>(i));
    put(static_cast<uint32_t>(token.size()));
    good += token;
  }
  std::mt19937_64 random(3);
  for (int i = 0; i < 2000; ++i) {
    std::string bad = good;
    const size_t bit = random() % (bad.size() * 8);
    CAPTURE(bit);
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    testing::Succeeds([&] {
      const auto tokenizer = model::MakeTokenizer(
          model::ParseLlama2cTokenizer(std::as_bytes(std::span(bad)), "tokenizer.bin", kTokens), "tokenizer.bin");
      CHECK_FALSE(tokenizer->Decode(tokenizer->Encode("t1 t2 \xff\x00 some text")).empty());
    });
  }
}

}  // namespace
}  // namespace lanewise::testing
