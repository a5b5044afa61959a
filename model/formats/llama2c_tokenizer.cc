#include "model/error.h"
#include "model/formats/byte_reader.h"
#include "model/formats/llama2c.h"

namespace lanewise::model {
namespace {

constexpr uint64_t kMostTokens = 200'000;

}  // namespace

Json ParseLlama2cTokenizer(std::span<const std::byte> bytes, const std::string& where,
                           uint64_t vocab_size) {
  ByteReader reader(bytes, where);
  if (vocab_size < 3 + 256 || vocab_size > kMostTokens) {
    throw InputError(where + ": a tokenizer of " + std::to_string(vocab_size) +
                     " tokens; from 259 to " + std::to_string(kMostTokens) + " are possible");
  }
  const auto longest = reader.Read<uint32_t>("longest token");
  if (vocab_size > reader.remaining() / 8) {
    reader.Fail("tokens", std::to_string(vocab_size) + " do not fit the " +
                              std::to_string(reader.remaining()) + " bytes that remain");
  }
  Json tokens = Json::array();
  Json scores = Json::array();
  for (uint64_t id = 0; id < vocab_size; ++id) {
    const std::string name = "token " + std::to_string(id);
    const TensorView score = reader.TakeFloats(name + " score", {1});
    float value = 0.0f;
    score.ReadFloats(0, {&value, 1});
    const auto length = reader.Read<uint32_t>(name + " length");
    // Byte and control tokens may be longer than "longest", which counts text only.
    if (length > longest && length > 16) {
      reader.Fail(name + " length",
                  std::to_string(length) + " is beyond the longest, " + std::to_string(longest));
    }
    const auto text = reader.Take(length, name);
    tokens.push_back(BytesToJson({reinterpret_cast<const char*>(text.data()), text.size()}));
    scores.push_back(value);
  }
  reader.ExpectEnd();
  return {{"kind", "llama2c"}, {"tokens", std::move(tokens)}, {"scores", std::move(scores)}};
}

Json ReadLlama2cTokenizer(FileSystem& files, const std::string& path, uint64_t vocab_size) {
  const MappedFile file(files, path);
  return ParseLlama2cTokenizer(file.bytes(), path, vocab_size);
}

}  // namespace lanewise::model
