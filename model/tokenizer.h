// Text to token ids and back. Text is bytes: it need not be valid UTF-8 and may hold NULs.
#ifndef LANEWISE_MODEL_TOKENIZER_H_
#define LANEWISE_MODEL_TOKENIZER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/json.h"

namespace lanewise::model {

// Ids of a text in pieces; `bytes` of the text are read so far.
using TokenSink = std::function<void(std::span<const int32_t> ids, size_t bytes)>;

// Called now and then with the bytes that are read so far. What it throws ends the reading.
using ReadProgress = std::function<void(uint64_t bytes)>;

// Turns ids into text one at a time. Has the memory that some tokenizers need between ids.
class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  // Appends the bytes that `id` adds. Ids outside the vocabulary add nothing.
  virtual void Push(int32_t id, std::string* out) = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string_view kind() const = 0;  // as --tokenizer spells it
  virtual int32_t vocab_size() const = 0;
  // True where Decode(Encode(text)) is the text for any bytes.
  virtual bool lossless() const = 0;
  // Ids of tokens that begin and end a text, -1 where there is none. Encode does not add them.
  virtual int32_t bos_id() const { return -1; }
  virtual int32_t eos_id() const { return -1; }

  // Gives the ids of a whole text in pieces, with memory that does not grow with the text.
  virtual void EncodeTo(std::string_view text, const TokenSink& sink) const = 0;
  std::vector<int32_t> Encode(std::string_view text) const;

  // A decoder for the start of a text, or for the middle of one (llama2.c drops the first space
  // only).
  virtual std::unique_ptr<TokenDecoder> NewDecoder(bool at_start) const = 0;
  std::string Decode(std::span<const int32_t> ids) const;

  // The bytes of one token by itself; empty for ids that have none.
  virtual std::string TokenBytes(int32_t id) const = 0;
  virtual Json ToJson() const = 0;
};

// A byte of a UTF-8 character that is not its first.
inline bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// Entries that a word or bpe vocabulary may have: what a tokenizer.json can hold, whatever they
// are.
inline constexpr int32_t kMostEntries = 150'000;

struct TokenizerOptions {
  // Entries of a word or bpe vocabulary, bytes included; 0 chooses by the size of the text.
  int32_t max_vocab = 0;
  ReadProgress progress = {};
};

// Kinds for new models: "byte", "char", "word", "bpe", "auto" (char below 20,000 bytes, else word).
// UsageError for others, with the nearest right one named.
std::unique_ptr<Tokenizer> BuildTokenizer(std::string_view kind,
                                          std::span<const std::string_view> texts,
                                          const TokenizerOptions& options);
// Whether a tokenizer of this kind is made by BuildTokenizer.
bool BuiltFromText(std::string_view kind);

// From ToJson's result, as found in tokenizer.json. InputError names `where` and the field.
std::unique_ptr<Tokenizer> MakeTokenizer(const Json& json, const std::string& where);

// Holds back the bytes of an unfinished UTF-8 sequence, so that streamed output never shows half a
// character. Bytes that cannot begin or go on one pass through.
class Utf8Stream {
 public:
  // Appends `bytes` and returns what is complete.
  std::string Push(std::string_view bytes);
  // Returns what is left.
  std::string Flush();

 private:
  std::string pending_;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_TOKENIZER_H_
