// The tokenizers behind model/tokenizer.h: one function that builds each from its tokenizer.json,
// and for new models one that makes it from texts.
#ifndef LANEWISE_MODEL_TOKENIZERS_KINDS_H_
#define LANEWISE_MODEL_TOKENIZERS_KINDS_H_

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/tokenizer.h"

namespace lanewise::model {

// byte: id = byte.
std::unique_ptr<Tokenizer> MakeByteTokenizer();

// char: the bytes that occur, sorted, numbered from 0. The id after them is an escape, so that any
// text can be encoded: a byte that does not occur is the escape and its value in hexadecimal
// digits, which are the first 16 ids (binary digits, the first 2 ids, where there are fewer than
// 16). With all 256 bytes there is no escape. In training the escape is never a target: it costs
// one column that the softmax learns to leave empty.
std::unique_ptr<Tokenizer> MakeCharTokenizer(const std::string& sorted_bytes);
std::unique_ptr<Tokenizer> CharTokenizerFromJson(const Json& json, const std::string& where);
std::unique_ptr<Tokenizer> BuildCharTokenizer(std::span<const std::string_view> texts);

// word: ids 0 to 255 are the bytes, then words by falling frequency. Texts are cut at the seed's
// separators; a word takes the one space before it along (" the" is one token) and may occur in
// both forms. Words that are not in the vocabulary are written in bytes.
std::unique_ptr<Tokenizer> MakeWordTokenizer(std::vector<std::string> words);
std::unique_ptr<Tokenizer> WordTokenizerFromJson(const Json& json, const std::string& where);
std::unique_ptr<Tokenizer> BuildWordTokenizer(std::span<const std::string_view> texts,
                                              const TokenizerOptions& options);

// seed-char and seed-word: as the seed program encodes and decodes; not lossless.
std::unique_ptr<Tokenizer> SeedCharTokenizerFromJson(const Json& json, const std::string& where);
std::unique_ptr<Tokenizer> SeedWordTokenizerFromJson(const Json& json, const std::string& where);

// llama2c: byte-pair merges by score, bytes where a character has no token. `tokens`: three marks,
// the 256 bytes, then texts; `kind` is what it is called.
std::unique_ptr<Tokenizer> MakeLlama2cTokenizer(std::string_view kind,
                                                std::vector<std::string> tokens,
                                                std::vector<float> scores);
std::unique_ptr<Tokenizer> Llama2cTokenizerFromJson(const Json& json, const std::string& where);

// bpe: the same with merges that are learned from texts. None goes from letters to other
// characters, or has more than one digit.
std::unique_ptr<Tokenizer> BuildBpeTokenizer(std::span<const std::string_view> texts,
                                             const TokenizerOptions& options);

// True at the bytes where the seed cuts words.
bool IsWordSeparator(char c);

// A decoder for tokenizers whose tokens do not depend on each other.
std::unique_ptr<TokenDecoder> MakePlainDecoder(const Tokenizer& tokenizer);

// Gathers the ids of a text and hands them on in large pieces. Flush at the end.
class TokenBuffer {
 public:
  TokenBuffer(std::string_view text, const TokenSink& sink)
      : sink_(sink), begin_(text.data()), read_(begin_) {
    ids_.reserve(kSize);
  }
  // What is pushed next begins there in the text.
  void At(const char* position) { read_ = position; }
  void Push(int32_t id) {
    ids_.push_back(id);
    if (ids_.size() == kSize) Flush();
  }
  void Flush() {
    if (!ids_.empty()) sink_(ids_, static_cast<size_t>(read_ - begin_));
    ids_.clear();
  }

 private:
  static constexpr size_t kSize = 8192;
  const TokenSink& sink_;
  const char* const begin_;
  const char* read_;
  std::vector<int32_t> ids_;
};

// Ids by text, looked up without making a string.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using IdsByText = std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>>;

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_TOKENIZERS_KINDS_H_
