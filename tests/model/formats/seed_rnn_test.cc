#include "model/formats/seed_rnn.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "model/error.h"
#include "model/tokenizer.h"
#include "tests/support/memory_files.h"
#include "tests/support/model_files.h"

namespace lanewise::model {
namespace {

using testing::Contains;
using testing::Golden;
using testing::MemoryFiles;
using testing::MessageOf;
using testing::ReadWhole;

ModelFile Parse(const std::string& bytes) {
  return ParseSeedRnn(MappedFile::FromBytes(bytes, "m.bin"));
}

std::string ParseMessage(const std::string& bytes) {
  return MessageOf<InputError>([&] { Parse(bytes); });
}

void PutInt(std::string* bytes, size_t offset, int32_t value) {
  std::memcpy(bytes->data() + offset, &value, sizeof value);
}

Json GoldenJson(const std::string& name) { return ParseJson(ReadWhole(Golden(name)), name); }

TEST_CASE("the seed program's files: sizes, shapes and tokens") {
  const auto files = MakeSystemFiles();
  for (const std::string name : {"char", "word", "stress"}) {
    CAPTURE(name);
    const ModelFile model = ReadSeedRnn(*files, Golden("slot_rnn/" + name + ".bin"));
    CHECK(model.format == "lrnnC02");
    const Json gradients = GoldenJson("slot_rnn/" + name + "_grad.json");
    const Json& tensors = gradients["gradients"]["label_smoothing=0.0"];
    CHECK(model.tensors.size() == tensors.size());
    for (const NamedTensor& tensor : model.tensors) {
      CAPTURE(tensor.name);
      REQUIRE(tensors.contains(tensor.name));
      CHECK(tensors[tensor.name]["shape"] == Json(tensor.shape));
      CHECK(tensor.Values().size() == tensor.Elements());
    }
    if (name == "stress") continue;
    const Json expected = GoldenJson("slot_rnn/" + name + ".json");
    CHECK(model.config["vocab_size"] == expected["config"]["vocab_size"]);
    CHECK(model.config["layers"] == expected["config"]["n_layer"]);
    CHECK(model.config["dim"] == expected["config"]["n_embd"]);
    CHECK(model.config["heads"] == expected["config"]["n_head"]);
    CHECK(model.config["ctx"] == expected["config"]["ctx_len"]);
    CHECK(model.config["decay_rank"] == expected["config"]["decay_lora_rank"]);
    CHECK(model.config["ffn_dim"] == expected["config"]["ffn_hidden"]);
    CHECK(model.config["slots"] == expected["config"]["n_mem_slots"]);
    const auto tokenizer = MakeTokenizer(model.tokenizer, name);
    CHECK(tokenizer->kind() == "seed-" + name);
    const std::string prompt = ReadWhole(Golden("slot_rnn/prompt.txt"));
    CHECK(Json(tokenizer->Encode(prompt)) == expected["tokens"]);
    CHECK(tokenizer->Decode(tokenizer->Encode(prompt)) == prompt);
  }
}

TEST_CASE("version 1 holds the same model") {
  const auto files = MakeSystemFiles();
  const ModelFile one = ReadSeedRnn(*files, Golden("slot_rnn/char_v1.bin"));
  const ModelFile two = ReadSeedRnn(*files, Golden("slot_rnn/char.bin"));
  CHECK(one.format == "lrnnC01");
  CHECK(one.config == two.config);
  CHECK(one.tokenizer == two.tokenizer);
  REQUIRE(one.tensors.size() == two.tensors.size());
  for (size_t i = 0; i < one.tensors.size(); ++i) {
    CHECK(one.tensors[i].Values() == two.tensors[i].Values());
  }
}

TEST_CASE("what is read is written back byte for byte") {
  const auto disk = MakeSystemFiles();
  for (const std::string name : {"char", "word", "stress"}) {
    CAPTURE(name);
    const std::string path = Golden("slot_rnn/" + name + ".bin");
    MemoryFiles files;
    WriteSeedRnn(files, "out.bin", ReadSeedRnn(*disk, path));
    CHECK(files.Content("out.bin") == ReadWhole(path));
    CHECK(files.AllFiles().size() == 1);
  }
}

TEST_CASE("new tokenizers go through the seed's format") {
  const auto disk = MakeSystemFiles();
  const std::string text = "the cat and the dog, and the cat\xff!";
  const std::string_view texts[] = {text};
  const auto word = BuildTokenizer("word", texts, {});
  ModelFile model = ReadSeedRnn(*disk, Golden("slot_rnn/word.bin"));
  REQUIRE(word->vocab_size() < 1601);
  model.tokenizer = word->ToJson();
  MemoryFiles files;
  WriteSeedRnn(files, "out.bin", model);
  CHECK(ReadSeedRnn(files, "out.bin").tokenizer == word->ToJson());

  model.tokenizer = BuildTokenizer("byte", texts, {})->ToJson();
  WriteSeedRnn(files, "out.bin", model);
  const auto read = MakeTokenizer(ReadSeedRnn(files, "out.bin").tokenizer, "out.bin");
  CHECK(read->Encode(text) == BuildTokenizer("byte", texts, {})->Encode(text));

  const auto chars = BuildTokenizer("char", texts, {});
  model.tokenizer = chars->ToJson();
  WriteSeedRnn(files, "out.bin", model);
  CHECK(MakeTokenizer(ReadSeedRnn(files, "out.bin").tokenizer, "")->Encode(text) ==
        chars->Encode(text));

  model.tokenizer = {{"kind", "llama2c"}};
  CHECK(!MessageOf<UsageError>([&] { WriteSeedRnn(files, "out.bin", model); }).empty());
  model.config["model"] = "llama";
  CHECK(Contains(MessageOf<UsageError>([&] { WriteSeedRnn(files, "out.bin", model); }), "llama"));
}

TEST_CASE("the multiplier that is written gives the stored width") {
  const auto disk = MakeSystemFiles();
  ModelFile model = ReadSeedRnn(*disk, Golden("slot_rnn/char.bin"));
  const uint64_t dim = model.config["dim"].get<uint64_t>();
  MemoryFiles files;
  for (const double multiplier : {2.0, 7.0, 1.0}) {
    model.config["ffn_mult"] = multiplier;
    WriteSeedRnn(files, "out.bin", model);
    const auto read = ReadSeedRnn(files, "out.bin").config["ffn_mult"].get<float>();
    CHECK(static_cast<int>(static_cast<float>(dim) * read) == model.config["ffn_dim"].get<int>());
  }
}

TEST_CASE("every truncation is refused, and so are trailing bytes") {
  for (const char* name : {"slot_rnn/char.bin", "slot_rnn/char_v1.bin", "slot_rnn/word.bin"}) {
    const std::string good = ReadWhole(Golden(name));
    for (size_t size = 0; size < good.size(); size += size < 5000 ? 1 : 997) {
      CAPTURE(size);
      CHECK(!ParseMessage(good.substr(0, size)).empty());
    }
    CHECK(Contains(ParseMessage(good + '\0'), "1 bytes after the last field"));
  }
}

TEST_CASE("counts at their extremes are refused with file, offset and field") {
  const std::string good = ReadWhole(Golden("slot_rnn/char.bin"));
  const char* names[] = {"vocab_size", "n_layer",         "n_embd",         "n_head",
                         "ctx_len",    "decay_lora_rank", "ffn_multiplier", "n_mem_slots"};
  for (size_t field = 0; field < 8; ++field) {
    for (const int32_t value : {0, -1, INT32_MIN, INT32_MAX, 1 << 20}) {
      std::string bad = good;
      PutInt(&bad, 8 + 4 * field, value);
      CAPTURE(field);
      CAPTURE(value);
      const std::string message = ParseMessage(bad);
      // Any context length is possible, and float bits may be a number.
      if ((field == 4 || field == 6) && value > 0) continue;
      CHECK(message.starts_with("m.bin: "));
      CHECK(Contains(message, "offset "));
      if (value <= 0) CHECK(Contains(message, names[field]));
    }
  }
  std::string bad = good;
  PutInt(&bad, 40, 2);
  CHECK(Contains(ParseMessage(bad), "offset 40: tokenizer type: is 2"));
  for (const int32_t value : {0, -1, 257, INT32_MAX}) {
    bad = good;
    PutInt(&bad, 44, value);
    CHECK(Contains(ParseMessage(bad), "offset 44: number of characters"));
  }
  bad = good;
  PutInt(&bad, 48 + 58 + 4 * 255, 58);
  CHECK(Contains(ParseMessage(bad), "byte to id: is 58, must be from 0 to 57"));

  const std::string words = ReadWhole(Golden("slot_rnn/word.bin"));
  for (const int32_t value : {-1, 1602, INT32_MAX}) {
    bad = words;
    PutInt(&bad, 44, value);
    CHECK(Contains(ParseMessage(bad), "number of words"));
    bad = words;
    PutInt(&bad, 64, value == 1602 ? 70'000 : value);
    CHECK(Contains(ParseMessage(bad), "length of a word"));
  }
}

TEST_CASE("tensor headers must be those of the sizes, and values finite") {
  const std::string good = ReadWhole(Golden("slot_rnn/char.bin"));
  const size_t emb = 48 + 58 + 1024;
  for (const int32_t value : {0, -1, 59, INT32_MAX}) {
    std::string bad = good;
    PutInt(&bad, emb, value);
    CHECK(Contains(ParseMessage(bad), "emb"));
    bad = good;
    PutInt(&bad, emb + 4, value);
    CHECK(Contains(ParseMessage(bad), "emb"));
  }
  std::string bad = good;
  const float nan = std::nanf("");
  std::memcpy(bad.data() + emb + 8 + 4 * 5, &nan, 4);
  CHECK(Contains(ParseMessage(bad), "emb: entry 5 is NaN or infinite"));
  bad = good;
  const float infinity = -std::numeric_limits<float>::infinity();
  std::memcpy(bad.data() + bad.size() - 4, &infinity, 4);
  CHECK(Contains(ParseMessage(bad), "head: entry 1855 is NaN or infinite"));
  const size_t layers = emb + 8 + 58 * 32 * 4 + 2 * (8 + 32 * 4);
  bad = good;
  PutInt(&bad, layers, 3);
  CHECK(Contains(ParseMessage(bad), "layer count: is 3 where n_layer is 2"));
}

TEST_CASE("random bit flips give an error or finite weights") {
  std::mt19937_64 random(5);
  for (const char* name : {"slot_rnn/char.bin", "slot_rnn/word.bin"}) {
    const std::string good = ReadWhole(Golden(name));
    for (int i = 0; i < 300; ++i) {
      std::string bad = good;
      // Half of them where the counts are.
      const size_t range = i % 2 == 0 ? 2048 : good.size();
      const size_t bit = random() % (range * 8);
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
      testing::Succeeds([&] {
        const ModelFile model = Parse(bad);
        MakeTokenizer(model.tokenizer, "m.bin")->Encode("To be, or not to be");
        for (const NamedTensor& tensor : model.tensors) {
          const std::vector<float> values = tensor.Values();
          REQUIRE(
              std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); }));
        }
      });
    }
  }
}

}  // namespace
}  // namespace lanewise::model
