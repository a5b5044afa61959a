// GGUF, read back field by field. That llama.cpp gives the same tokens and losses was seen by hand.
#include "model/formats/gguf.h"

#include <doctest/doctest.h>

#include <cstring>
#include <map>

#include "model/error.h"
#include "model/formats/llama2c.h"
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

struct GgufTensor {
  std::vector<uint64_t> dims;  // fastest first
  uint32_t type = 0;
  uint64_t offset = 0;  // in the file
};

// All of a file: values by key, lists as JSON lists.
struct Gguf {
  Json values;
  std::map<std::string, GgufTensor> tensors;
  std::string bytes;
  size_t at = 0;

  explicit Gguf(std::string file) : bytes(std::move(file)) {
    REQUIRE(bytes.substr(0, 4) == "GGUF");
    at = 4;
    REQUIRE(Take<uint32_t>() == 3);
    const auto tensor_count = Take<uint64_t>();
    for (auto left = Take<uint64_t>(); left > 0; --left) {
      const std::string key = Text();
      values[key] = Value(Take<uint32_t>());
    }
    for (uint64_t t = 0; t < tensor_count; ++t) {
      GgufTensor& tensor = tensors[Text()];
      tensor.dims.resize(Take<uint32_t>());
      for (uint64_t& size : tensor.dims) size = Take<uint64_t>();
      tensor.type = Take<uint32_t>();
      tensor.offset = Take<uint64_t>();
    }
    const size_t data = (at + 31) / 32 * 32;
    for (auto& [name, tensor] : tensors) tensor.offset += data;
  }

  template <typename T>
  T Take() {
    REQUIRE(at + sizeof(T) <= bytes.size());
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    at += sizeof value;
    return value;
  }
  std::string Text() {
    const auto size = Take<uint64_t>();
    REQUIRE(at + size <= bytes.size());
    at += size;
    return bytes.substr(at - size, size);
  }
  Json Value(uint32_t type) {
    if (type == 4) return Take<uint32_t>();
    if (type == 5) return Take<int32_t>();
    if (type == 6) return Take<float>();
    if (type == 7) return Take<uint8_t>() != 0;
    if (type == 8) return Text();
    REQUIRE(type == 9);
    const auto element = Take<uint32_t>();
    Json list = Json::array();
    for (auto left = Take<uint64_t>(); left > 0; --left) list.push_back(Value(element));
    return list;
  }
};

Gguf Write(const ModelFile& model, bool bf16 = false) {
  MemoryFiles files;
  WriteGguf(files, "m.gguf", model, bf16);
  return Gguf(files.Content("m.gguf"));
}

ModelFile Model(const std::string& name, const Json& tokenizer) {
  ModelFile model = ParseLlama2c(MappedFile::FromBytes(ReadWhole(Golden(name)), "m.bin"));
  model.tokenizer = tokenizer;
  return model;
}

TEST_CASE("sizes and tensors") {
  for (const char* name : {"llama/llama_gqa_tied.bin", "llama/llama_mha_untied.bin"}) {
    for (const bool bf16 : {false, true}) {
      CAPTURE(name);
      CAPTURE(bf16);
      const ModelFile model = Model(name, nullptr);
      const Gguf file = Write(model, bf16);
      const Json& c = model.config;
      CHECK(file.values["general.architecture"] == "llama");
      CHECK(file.values["general.file_type"] == (bf16 ? 32 : 0));
      CHECK(file.values["llama.block_count"] == c["layers"]);
      CHECK(file.values["llama.context_length"] == c["ctx"]);
      CHECK(file.values["llama.embedding_length"] == c["dim"]);
      CHECK(file.values["llama.feed_forward_length"] == c["hidden_dim"]);
      CHECK(file.values["llama.attention.head_count"] == c["heads"]);
      CHECK(file.values["llama.attention.head_count_kv"] == c["kv_heads"]);
      CHECK(file.values["llama.vocab_size"] == c["vocab_size"]);
      CHECK(file.values["llama.rope.dimension_count"] ==
            c["dim"].get<int>() / c["heads"].get<int>());
      CHECK(file.values["llama.rope.freq_base"] == 10000.0F);
      CHECK(file.values["llama.attention.layer_norm_rms_epsilon"] == 1e-5F);
      CHECK(file.values["tokenizer.ggml.model"] == "none");
      CHECK(file.tensors.size() == model.tensors.size());
      CHECK(file.tensors.contains("output.weight") != c["tied"].get<bool>());
      const std::map<std::string, std::string> pairs = {
          {"tok_embeddings", "token_embd"},  {"norm", "output_norm"},
          {"layers.0.wq", "blk.0.attn_q"},   {"layers.1.wk", "blk.1.attn_k"},
          {"layers.1.w1", "blk.1.ffn_gate"}, {"layers.1.w2", "blk.1.ffn_down"},
          {"layers.0.w3", "blk.0.ffn_up"},   {"layers.0.ffn_norm", "blk.0.ffn_norm"}};
      for (const auto& [ours, theirs] : pairs) {
        CAPTURE(ours);
        const NamedTensor& tensor = *model.Find(ours);
        const GgufTensor& found = file.tensors.at(theirs + ".weight");
        CHECK(Shape(found.dims.rbegin(), found.dims.rend()) == tensor.shape);
        CHECK(found.offset % 32 == 0);
        const bool half = bf16 && tensor.shape.size() > 1;
        CHECK(found.type == (half ? 30 : 0));
        const std::vector<float> values = tensor.Values();
        const size_t size = values.size() * (half ? 2 : 4);
        REQUIRE(found.offset + size <= file.bytes.size());
        const char* stored = file.bytes.data() + found.offset;
        if (!half) {
          CHECK(std::memcmp(stored, values.data(), size) == 0);
          continue;
        }
        for (size_t i = 0; i < values.size(); ++i) {
          uint16_t bits = 0;
          std::memcpy(&bits, stored + 2 * i, 2);
          CHECK(BF16ToFloat(bits) == doctest::Approx(values[i]).epsilon(1.0 / 256));
        }
      }
      CHECK(file.bytes.size() % 32 == 0);
    }
  }
}

TEST_CASE("a vocabulary of bytes, and one of characters: no text has their special token") {
  const Gguf bytes = Write(Model("llama/llama_gqa_tied.bin", {{"kind", "byte"}}));
  const Json& texts = bytes.values["tokenizer.ggml.tokens"];
  CHECK(bytes.values["tokenizer.ggml.model"] == "llama");
  CHECK(texts.size() == bytes.values["llama.vocab_size"]);  // padded
  CHECK(texts[0] == "<0x00>");
  CHECK(texts[' '] == "\xE2\x96\x81");
  CHECK(texts['A'] == "<0x41>");
  CHECK(texts[256] == "<unused_256>");
  const Json& types = bytes.values["tokenizer.ggml.token_type"];
  CHECK(types['A'] == 6);
  CHECK(types[' '] == 1);
  CHECK(types[256] == 5);
  CHECK(bytes.values["tokenizer.ggml.eos_token_id"] == 255);
  CHECK(bytes.values["tokenizer.ggml.add_bos_token"] == false);
  CHECK(bytes.values["tokenizer.ggml.add_space_prefix"] == false);

  const std::string_view text = "a bc";
  const Gguf chars = Write(
      Model("llama/llama_gqa_tied.bin", BuildTokenizer("char", std::span(&text, 1), {})->ToJson()));
  const Json& few = chars.values["tokenizer.ggml.tokens"];
  CHECK(few[0] == "\xE2\x96\x81");
  CHECK(few[1] == "<0x61>");
  CHECK(few[4] == "<unused_4>");
  CHECK(chars.values["tokenizer.ggml.bos_token_id"] == 4);
}

TEST_CASE("llama2.c's vocabulary: spaces, bytes, special tokens, none twice") {
  Json tokens = Json::array(), scores = Json::array();
  for (int i = 0; i < 259; ++i) tokens.push_back(BytesToJson("<" + std::to_string(i) + ">"));
  for (const char* token : {" the", "the", "the", ""}) tokens.push_back(BytesToJson(token));
  for (size_t i = 0; i < tokens.size(); ++i) scores.push_back(-static_cast<double>(i));
  const Gguf file = Write(Model("llama/llama_gqa_tied.bin",
                                {{"kind", "llama2c"}, {"tokens", tokens}, {"scores", scores}}));
  const Json& texts = file.values["tokenizer.ggml.tokens"];
  CHECK(texts[0] == "<unk>");
  CHECK(texts[1] == "<s>");
  CHECK(texts[2] == "</s>");
  CHECK(texts[3] == "<0x00>");
  CHECK(texts[258] == "<0xFF>");
  CHECK(texts[259] == "\xE2\x96\x81the");
  CHECK(texts[260] == "the");
  CHECK(texts[261] == "<unused_261>");
  CHECK(file.values["tokenizer.ggml.scores"][260] == -260.0F);
  CHECK(file.values["tokenizer.ggml.token_type"][1] == 3);
  CHECK(file.values["tokenizer.ggml.bos_token_id"] == 1);
  CHECK(file.values["tokenizer.ggml.add_bos_token"] == true);
  CHECK(file.values["tokenizer.ggml.add_space_prefix"] == true);
}

TEST_CASE("what GGUF has no place for") {
  const std::string_view text = "some words";
  const ModelFile words =
      Model("llama/llama_gqa_tied.bin", BuildTokenizer("word", std::span(&text, 1), {})->ToJson());
  CHECK(Contains(MessageOf<UsageError>([&] { Write(words); }), "--tokenizer bpe"));
  ModelFile rnn = Model("llama/llama_gqa_tied.bin", nullptr);
  rnn.config["model"] = "slot_rnn";
  CHECK(Contains(MessageOf<UsageError>([&] { Write(rnn); }), "slot_rnn"));
}

}  // namespace
}  // namespace lanewise::model
