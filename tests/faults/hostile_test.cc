// Model files from strangers: cut anywhere, with flipped bits. Each is refused with the file's
// name, or gives a model whose weights are all finite; memory stays within twice the file and 64
// MiB.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "model/checkpoint.h"
#include "model/error.h"
#include "model/formats/llama2c.h"
#include "model/formats/safetensors.h"
#include "model/loaded_model.h"
#include "runtime/arena.h"
#include "tests/faults/cycle.h"
#include "tests/support/memory_files.h"
#include "tests/support/model_files.h"

namespace lanewise::testing {
namespace {

// AddressSanitizer does, so that its use is noticed: memory then says nothing about the code.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeepsFreedMemory = true;
#else
constexpr bool kKeepsFreedMemory = false;
#endif

struct Hostile {
  std::string path;  // of the file that is damaged
  std::string open;  // what is opened
  std::string good;
};

// A folder without a manifest: nothing but the formats' own checks.
void AddBareFolder(MemoryFiles& files, const std::string& name) {
  const auto disk = model::MakeSystemFiles();
  const model::ModelFile seed = model::OpenModel(*disk, Golden(name));
  std::vector<model::TensorSource> tensors;
  for (const model::NamedTensor& tensor : seed.tensors)
    tensors.push_back(model::MakeSource(tensor));
  model::CheckpointContent content;
  content.config = seed.config;
  content.tokenizer = seed.tokenizer;
  content.weights = tensors;
  model::SaveModelFolder(files, "bare", content, 1, std::nullopt);
  files.RemoveFile("bare/MANIFEST.json");
}

std::vector<Hostile> HostileFiles(MemoryFiles& files) {
  std::vector<Hostile> list;
  for (const char* name :
       {"slot_rnn/char.bin", "slot_rnn/char_v1.bin", "slot_rnn/word.bin", "slot_rnn/stress.bin",
        "llama/llama_gqa_tied.bin", "llama/llama_mha_untied.bin"}) {
    list.push_back({"m.bin", "m.bin", ReadWhole(Golden(name))});
  }
  const auto disk = model::MakeSystemFiles();
  model::WriteLlama2c(files, "v1.bin", model::OpenModel(*disk, Golden("llama/llama_gqa_tied.bin")),
                      1);
  list.push_back({"v1.bin", "v1.bin", files.Content("v1.bin")});
  AddBareFolder(files, "slot_rnn/char.bin");
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    const std::string path = model::JoinPath("bare", name);
    list.push_back({path, "bare", files.Content(path)});
  }
  return list;
}

// Of each file; a sample of them every day.
int Flips() { return Soak() ? 2000 : 250; }

// Loads as the program does. True where it is a model, whose weights are finite then.
bool Loads(MemoryFiles& files, const Hostile& hostile, const std::string& bytes) {
  files.SetContent(hostile.path, bytes);
  try {
    const model::LoadedModel loaded = model::LoadModel(files, hostile.open);
    for (const model::Param& param : loaded.model->params().params()) {
      const auto values = param.In(loaded.weights().full);
      for (size_t r = 0; r < values.rows; ++r) {
        for (const float w : values.RowSpan(r)) REQUIRE(std::isfinite(w));
      }
    }
    return true;
  } catch (const model::InputError& error) {
    CHECK(Contains(error.what(), hostile.open));
    return false;
  }
}

// Where the fields behind the first 4 KiB begin and end. Binary formats tell: cut before the end of
// a field, they name its offset.
std::vector<size_t> LaterBoundaries(MemoryFiles& files, const Hostile& hostile) {
  std::vector<size_t> boundaries;
  const std::string& good = hostile.good;
  if (hostile.path.ends_with(".safetensors")) {
    const auto file = model::SafetensorsFile::Parse(std::as_bytes(std::span(good)), hostile.path);
    for (const model::TensorView& tensor : file.tensors()) {
      boundaries.push_back(
          static_cast<size_t>(tensor.bytes.data() - std::as_bytes(std::span(good)).data()));
    }
  } else if (!hostile.path.ends_with(".json")) {
    const size_t most = Soak() ? good.size() : 40;
    for (size_t end = good.size(); end > 4096 && boundaries.size() < most;
         end = boundaries.back()) {
      files.SetContent(hostile.path, good.substr(0, end - 1));
      const std::string message = MessageOf([&] { model::LoadModel(files, hostile.open); });
      const size_t at = message.find("offset ");
      REQUIRE(at != std::string::npos);
      boundaries.push_back(std::stoul(message.substr(at + 7)));
      REQUIRE(boundaries.back() < end);
    }
  }
  return boundaries;
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
    const auto cut = [&](size_t size) {
      if (size >= end) return;
      CAPTURE(size);
      CHECK_FALSE(Loads(files, hostile, hostile.good.substr(0, size)));
      ++cuts;
    };
    for (size_t size = 0; size < 4096; ++size) cut(size);
    for (const size_t boundary : LaterBoundaries(files, hostile)) {
      for (const size_t size : {boundary - 1, boundary, boundary + 1}) cut(size);
    }
    files.SetContent(hostile.path, hostile.good);
  }
  const size_t grown = runtime::PeakResidentBytes() - before;
  CAPTURE(grown);
  CHECK((kKeepsFreedMemory || grown < 2 * largest + (size_t{64} << 20)));
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
    for (int i = 0; i < Flips(); ++i) {
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
  const size_t grown = runtime::PeakResidentBytes() - before;
  CAPTURE(grown);
  CHECK((kKeepsFreedMemory || grown < 2 * largest + (size_t{64} << 20)));
  MESSAGE(refused, " refused, ", loaded, " loaded with finite weights");
}

TEST_CASE("our own checkpoints never load when a bit has flipped") {
  for (const std::string& kind : kKinds) {
    MemoryFiles files;
    Saves saves;
    Cycle(kind).Run(files, &saves);
    const std::string folder = model::CheckpointStore(files, kCycleFolder, 1).Latest()->folder;
    std::mt19937_64 random(4);
    for (const char* name : {"config.json", "tokenizer.json", "model.safetensors",
                             "train_state.safetensors", "MANIFEST.json"}) {
      const std::string path = model::JoinPath(folder, name);
      CAPTURE(path);
      const std::string good = files.Content(path);
      for (int i = 0; i < Flips(); ++i) {
        std::string bad = good;
        const size_t bit = random() % (bad.size() * 8);
        CAPTURE(bit);
        bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
        files.SetContent(path, bad);
        const std::string message =
            MessageOf<model::InputError>([&] { model::LoadCheckpoint(files, folder); });
        CHECK(Contains(message, folder));
      }
      files.SetContent(path, good);
    }
    CHECK(model::LoadCheckpoint(files, folder).can_resume());
  }
}

TEST_CASE("numbers of config.json at their extremes are refused before memory is taken for them") {
  MemoryFiles files;
  const auto disk = model::MakeSystemFiles();
  const size_t before = runtime::PeakResidentBytes();
  for (const char* name : {"slot_rnn/char.bin", "llama/llama_mha_untied.bin"}) {
    const model::ModelFile good = model::OpenModel(*disk, Golden(name));
    AddBareFolder(files, name);
    for (const auto& [field, value] : good.config.items()) {
      if (!value.is_number()) continue;
      for (const char* number :
           {"0", "1", "-1", "2147483647", "2147483648", "-2147483648", "9223372036854775807",
            "18446744073709551615", "18446744073709551616", "1e300", "-1e300", "0.5", "1e999"}) {
        CAPTURE(field);
        CAPTURE(number);
        std::string text = good.config.dump();
        const std::string key = "\"" + field + "\":";
        const size_t at = text.find(key) + key.size();
        text.replace(at, text.find_first_of(",}", at) - at, number);
        const Hostile hostile{"bare/config.json", "bare", text};
        const bool loads = Loads(files, hostile, text);
        // Sizes of tensors are those of the file; the others are free.
        const bool shapes = field != "ctx" && field != "norm_eps" && field != "rope_theta" &&
                            field != "ffn_mult" && field != "heads" && field != "kv_heads";
        if (shapes) CHECK_FALSE(loads);
      }
    }
    model::RemoveTree(files, "bare");
  }
  CHECK(runtime::PeakResidentBytes() - before < size_t{64} << 20);
}

TEST_CASE("tokenizer.bin with flipped bits is refused or works") {
  std::string good;
  const auto put = [&](auto value) {
    good.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  put(uint32_t{9});
  constexpr uint32_t kTokens = 300;
  for (uint32_t i = 0; i < kTokens; ++i) {
    const std::string token = "t" + std::to_string(i * 7919 % 1000);
    put(-static_cast<float>(i));
    put(static_cast<uint32_t>(token.size()));
    good += token;
  }
  std::mt19937_64 random(3);
  for (int i = 0; i < Flips(); ++i) {
    std::string bad = good;
    const size_t bit = random() % (bad.size() * 8);
    CAPTURE(bit);
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    testing::Succeeds([&] {
      const auto tokenizer = model::MakeTokenizer(
          model::ParseLlama2cTokenizer(std::as_bytes(std::span(bad)), "tokenizer.bin", kTokens),
          "tokenizer.bin");
      CHECK_FALSE(tokenizer->Decode(tokenizer->Encode("t1 t2 \xff\x00 some text")).empty());
    });
  }
}

}  // namespace
}  // namespace lanewise::testing
