#include "model/tokenizer.h"

#include <algorithm>
#include <utility>

#include "model/error.h"
#include "model/nearest.h"
#include "model/tokenizers/kinds.h"

namespace lanewise::model {
namespace {

constexpr uint64_t kWordsFromBytes = 20'000;

class PlainDecoder final : public TokenDecoder {
 public:
  explicit PlainDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  void Push(int32_t id, std::string* out) override { *out += tokenizer_.TokenBytes(id); }

 private:
  const Tokenizer& tokenizer_;
};

// Length of the UTF-8 sequence that this byte begins; 1 where it begins none.
size_t SequenceLength(unsigned char lead) {
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 1;
}

}  // namespace

std::unique_ptr<TokenDecoder> MakePlainDecoder(const Tokenizer& tokenizer) {
  return std::make_unique<PlainDecoder>(tokenizer);
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  std::vector<int32_t> ids;
  EncodeTo(text, [&](std::span<const int32_t> part, size_t) {
    ids.insert(ids.end(), part.begin(), part.end());
  });
  return ids;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids) const {
  std::string text;
  const auto decoder = NewDecoder(true);
  for (const int32_t id : ids) decoder->Push(id, &text);
  return text;
}

std::unique_ptr<Tokenizer> BuildTokenizer(std::string_view kind,
                                          std::span<const std::string_view> texts,
                                          const TokenizerOptions& options) {
  uint64_t bytes = 0;
  for (const std::string_view text : texts) bytes += text.size();
  if (kind == "auto") kind = bytes < kWordsFromBytes ? "char" : "word";
  if (kind == "byte") return MakeByteTokenizer();
  if (kind == "char") return BuildCharTokenizer(texts);
  if (kind == "word") return BuildWordTokenizer(texts, options);
  if (kind == "bpe") return BuildBpeTokenizer(texts, options);
  throw UsageError(UnknownName("tokenizer", kind, {"auto", "byte", "char", "word", "bpe"}));
}

bool BuiltFromText(std::string_view kind) {
  return kind == "byte" || kind == "char" || kind == "word" || kind == "bpe";
}

std::unique_ptr<Tokenizer> MakeTokenizer(const Json& json, const std::string& where) {
  const std::string kind = GetString(json, "kind", where);
  if (kind == "byte") return MakeByteTokenizer();
  if (kind == "char") return CharTokenizerFromJson(json, where);
  if (kind == "word") return WordTokenizerFromJson(json, where);
  if (kind == "seed-char") return SeedCharTokenizerFromJson(json, where);
  if (kind == "seed-word") return SeedWordTokenizerFromJson(json, where);
  if (kind == "llama2c" || kind == "bpe") return Llama2cTokenizerFromJson(json, where);
  throw InputError(
      where + ": " +
      UnknownName("tokenizer", kind,
                  {"byte", "char", "word", "bpe", "seed-char", "seed-word", "llama2c"}));
}

std::string Utf8Stream::Push(std::string_view bytes) {
  pending_ += bytes;
  // Only the last sequence can be unfinished: look for its first byte among the last three.
  size_t complete = pending_.size();
  for (size_t back = 1; back <= std::min<size_t>(3, pending_.size()); ++back) {
    const char c = pending_[pending_.size() - back];
    if (IsContinuation(c)) continue;
    if (SequenceLength(static_cast<unsigned char>(c)) > back) complete = pending_.size() - back;
    break;
  }
  std::string ready = pending_.substr(0, complete);
  pending_.erase(0, complete);
  return ready;
}

std::string Utf8Stream::Flush() { return std::exchange(pending_, {}); }

}  // namespace lanewise::model
