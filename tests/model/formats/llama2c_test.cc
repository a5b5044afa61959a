#include "model/formats/llama2c.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "model/error.h"
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
  return ParseLlama2c(MappedFile::FromBytes(bytes, "m.bin"));
}

std::string ParseMessage(const std::string& bytes) {
  return MessageOf<InputError>([&] { Parse(bytes); });
}

template <typename T>
void Put(std::string* bytes, size_t offset, T value) {
  std::memcpy(bytes->data() + offset, &value, sizeof value);
}

template <typename T>
void Append(std::string* bytes, const std::vector<T>& values) {
  bytes->append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

bool IsLlama(const std::string& bytes) { return IsLlama2c(std::as_bytes(std::span(bytes))); }

// A version 2 file as llama2.c's export writes it: int8 groups, then their scales.
std::string Quantized(const ModelFile& model, int32_t group) {
  const Json& c = model.config;
  std::string bytes;
  Append<uint32_t>(&bytes, {0x616b3432, 2});
  Append<int32_t>(&bytes, {c["dim"], c["hidden_dim"], c["layers"], c["heads"], c["kv_heads"],
                           c["vocab_size"], c["ctx"]});
  bytes += static_cast<char>(c["tied"].get<bool>());
  Append<int32_t>(&bytes, {group});
  bytes.resize(256);
  const auto layers = c["layers"].get<size_t>();
  for (const char* name : {"attention_norm", "ffn_norm"}) {
    for (size_t l = 0; l < layers; ++l) {
      Append(&bytes, model.Find("layers." + std::to_string(l) + "." + name)->Values());
    }
  }
  Append(&bytes, model.Find("norm")->Values());
  std::vector<std::string> names = {"tok_embeddings"};
  for (const char* name : {"wq", "wk", "wv", "wo", "w1", "w2", "w3"}) {
    for (size_t l = 0; l < layers; ++l) {
      names.push_back("layers." + std::to_string(l) + "." + name);
    }
  }
  if (!c["tied"]) names.push_back("output");
  for (const std::string& name : names) {
    const std::vector<float> values = model.Find(name)->Values();
    std::vector<int8_t> quantized;
    std::vector<float> scales;
    for (size_t i = 0; i < values.size(); i += static_cast<size_t>(group)) {
      float largest = 0.0f;
      for (size_t j = i; j < i + static_cast<size_t>(group); ++j) {
        largest = std::fmax(largest, std::fabs(values[j]));
      }
      scales.push_back(largest / 127.0f);
      for (size_t j = i; j < i + static_cast<size_t>(group); ++j) {
        quantized.push_back(static_cast<int8_t>(std::round(values[j] / scales.back())));
      }
    }
    Append(&bytes, quantized);
    Append(&bytes, scales);
  }
  return bytes;
}

TEST_CASE("llama2.c's files: sizes, shapes, tied and untied") {
  const auto files = MakeSystemFiles();
  for (const std::string name : {"llama_gqa_tied", "llama_mha_untied"}) {
    CAPTURE(name);
    const ModelFile model = ReadLlama2c(*files, Golden("llama/" + name + ".bin"));
    const Json golden = ParseJson(ReadWhole(Golden("llama/" + name + ".json")), name)["config"];
    CHECK(model.format == "llama2c-v0");
    CHECK(IsLlama(ReadWhole(Golden("llama/" + name + ".bin"))));
    CHECK(model.config["dim"] == golden["dim"]);
    CHECK(model.config["hidden_dim"] == golden["hidden_dim"]);
    CHECK(model.config["layers"] == golden["n_layers"]);
    CHECK(model.config["heads"] == golden["n_heads"]);
    CHECK(model.config["kv_heads"] == golden["n_kv_heads"]);
    CHECK(model.config["vocab_size"] == golden["vocab_size"]);
    CHECK(model.config["ctx"] == golden["seq_len"]);
    CHECK(model.config["tied"] == (name == "llama_gqa_tied"));
    CHECK((model.Find("output") == nullptr) == (name == "llama_gqa_tied"));
    const Shape kv = {golden["dim"].get<uint64_t>() / golden["n_heads"].get<uint64_t>() *
                          golden["n_kv_heads"].get<uint64_t>(),
                      golden["dim"]};
    CHECK(model.Find("layers.1.wk")->shape == kv);
    CHECK(model.tensors.size() ==
          9 * golden["n_layers"].get<size_t>() + 2 + (name == "llama_gqa_tied" ? 0 : 1));
  }
}

TEST_CASE("versions 0 and 1 are written and read back") {
  const auto disk = MakeSystemFiles();
  for (const std::string name : {"llama_gqa_tied", "llama_mha_untied"}) {
    CAPTURE(name);
    const std::string path = Golden("llama/" + name + ".bin");
    const ModelFile model = ReadLlama2c(*disk, path);
    MemoryFiles files;
    WriteLlama2c(files, "v0.bin", model, 0);
    WriteLlama2c(files, "v1.bin", model, 1);
    const std::string original = ReadWhole(path);
    CHECK(files.Content("v0.bin").size() == original.size());
    for (const char* out : {"v0.bin", "v1.bin"}) {
      CAPTURE(out);
      CHECK(IsLlama(files.Content(out)));
      const ModelFile read = ReadLlama2c(files, out);
      CHECK(read.config == model.config);
      REQUIRE(read.tensors.size() == model.tensors.size());
      for (const NamedTensor& tensor : model.tensors) {
        CAPTURE(tensor.name);
        REQUIRE(read.Find(tensor.name) != nullptr);
        CHECK(read.Find(tensor.name)->Values() == tensor.Values());
      }
    }
  }
}

TEST_CASE("the rotation tables are those of the definition") {
  const auto disk = MakeSystemFiles();
  const ModelFile model = ReadLlama2c(*disk, Golden("llama/llama_gqa_tied.bin"));
  MemoryFiles files;
  WriteLlama2c(files, "v0.bin", model, 0);
  const std::string bytes = files.Content("v0.bin");
  const auto seq = model.config["ctx"].get<size_t>();
  const size_t half = model.config["dim"].get<size_t>() / model.config["heads"].get<size_t>() / 2;
  const size_t tables = bytes.size() - seq * half * 2 * 4;
  const auto value = [&](size_t index) {
    float x;
    std::memcpy(&x, bytes.data() + tables + index * 4, 4);
    return x;
  };
  const double angle = 5 * std::pow(10000.0, -2.0 * 1 / static_cast<double>(2 * half));
  CHECK(value(0) == 1.0f);
  CHECK(value(5 * half + 1) == doctest::Approx(std::cos(angle)));
  CHECK(value(seq * half + 5 * half + 1) == doctest::Approx(std::sin(angle)));
}

TEST_CASE("version 2 comes out as its dequantized values") {
  const auto disk = MakeSystemFiles();
  const ModelFile model = ReadLlama2c(*disk, Golden("llama/llama_gqa_tied.bin"));
  const int32_t group = 16;
  const std::string bytes = Quantized(model, group);
  const ModelFile read = Parse(bytes);
  CHECK(read.format == "llama2c-v2");
  CHECK(read.config == model.config);
  for (const NamedTensor& tensor : model.tensors) {
    CAPTURE(tensor.name);
    const std::vector<float> expected = tensor.Values();
    const std::vector<float> got = read.Find(tensor.name)->Values();
    const bool norm = Contains(tensor.name, "norm");
    for (size_t i = 0; i < expected.size(); ++i) {
      float largest = 0.0f;
      for (size_t j = i / group * group; j < i / group * group + group && !norm; ++j) {
        largest = std::fmax(largest, std::fabs(expected[j]));
      }
      if (std::fabs(got[i] - expected[i]) > largest / 127.0f * 0.5001f) {
        FAIL("entry ", i, " is ", got[i], " where ", expected[i], " was stored");
      }
    }
  }
  // A part that begins inside a group.
  std::vector<float> part(20);
  read.Find("layers.0.w1")->read(7, part);
  CHECK(part[0] == read.Find("layers.0.w1")->Values()[7]);
  CHECK(part[19] == read.Find("layers.0.w1")->Values()[26]);

  std::string bad = bytes;
  Put<int32_t>(&bad, 37, 7);
  CHECK(Contains(ParseMessage(bad), "whole groups of 7"));
  Put<int32_t>(&bad, 37, 0);
  CHECK(Contains(ParseMessage(bad), "group size: is 0"));
  bad = bytes;
  Put<float>(&bad, bad.size() - 4, 1e38f);
  CHECK(Contains(ParseMessage(bad), "infinite"));
  for (size_t size = 0; size < bytes.size(); size += size < 4096 ? 1 : 997) {
    CAPTURE(size);
    CHECK(!ParseMessage(bytes.substr(0, size)).empty());
  }
}

TEST_CASE("truncations, trailing bytes and counts at their extremes are refused") {
  for (const char* name : {"llama/llama_gqa_tied.bin", "llama/llama_mha_untied.bin"}) {
    const std::string good = ReadWhole(Golden(name));
    for (size_t size = 0; size < good.size(); size += size < 4096 ? 1 : 1009) {
      CAPTURE(size);
      CHECK(!ParseMessage(good.substr(0, size)).empty());
    }
    CHECK(Contains(ParseMessage(good + "abcd"), "4 bytes after the last field"));
    CHECK(!IsLlama(good + "abcd"));
    for (size_t field = 0; field < 7; ++field) {
      for (const int32_t value : {0, -1, INT32_MIN, INT32_MAX}) {
        std::string bad = good;
        Put(&bad, 4 * field, value);
        CAPTURE(field);
        CAPTURE(value);
        CHECK(ParseMessage(bad).starts_with("m.bin: "));
        CHECK(!IsLlama(bad));
      }
    }
  }
}

TEST_CASE("random bit flips give an error or finite weights") {
  const auto disk = MakeSystemFiles();
  const ModelFile model = ReadLlama2c(*disk, Golden("llama/llama_mha_untied.bin"));
  MemoryFiles files;
  WriteLlama2c(files, "v1.bin", model, 1);
  std::mt19937_64 random(7);
  for (const std::string& good : {ReadWhole(Golden("llama/llama_mha_untied.bin")),
                                  files.Content("v1.bin"), Quantized(model, 16)}) {
    for (int i = 0; i < 200; ++i) {
      std::string bad = good;
      const size_t bit = random() % ((i % 2 == 0 ? 256 : good.size()) * 8);
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
      testing::Succeeds([&] {
        for (const NamedTensor& tensor : Parse(bad).tensors) {
          const std::vector<float> values = tensor.Values();
          REQUIRE(
              std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); }));
        }
      });
    }
  }
}

TEST_CASE("what llama2.c cannot hold is refused") {
  const auto disk = MakeSystemFiles();
  ModelFile model = ReadLlama2c(*disk, Golden("llama/llama_mha_untied.bin"));
  MemoryFiles files;
  const auto message = [&] {
    return MessageOf<Error>([&] { WriteLlama2c(files, "out.bin", model, 0); });
  };
  CHECK(message().empty());
  model.config["rope_theta"] = 500000.0;
  CHECK(Contains(message(), "rope_theta"));
  model.config["rope_theta"] = 10000.0;
  model.tensors.pop_back();
  CHECK(Contains(message(), "tensor \"output\" is missing"));
  model.config["model"] = "slot_rnn";
  CHECK(Contains(message(), "slot_rnn"));
}

}  // namespace
}  // namespace lanewise::model
