// The tokenizers of single bytes.
#include <algorithm>
#include <array>

#include "model/error.h"
#include "model/tokenizers/kinds.h"

namespace lanewise::model {
namespace {

class ByteTokenizer final : public Tokenizer {
 public:
  std::string_view kind() const override { return "byte"; }
  int32_t vocab_size() const override { return 256; }
  bool lossless() const override { return true; }

  void EncodeTo(std::string_view text, const TokenSink& sink) const override {
    TokenBuffer buffer(text, sink);
    for (const char& c : text) {
      buffer.At(&c);
      buffer.Push(static_cast<unsigned char>(c));
    }
    buffer.Flush();
  }

  std::unique_ptr<TokenDecoder> NewDecoder(bool) const override { return MakePlainDecoder(*this); }
  std::string TokenBytes(int32_t id) const override {
    return id >= 0 && id < 256 ? std::string(1, static_cast<char>(id)) : "";
  }
  Json ToJson() const override { return {{"kind", "byte"}}; }
};

class CharTokenizer final : public Tokenizer {
 public:
  explicit CharTokenizer(const std::string& sorted_bytes) : bytes_(sorted_bytes) {
    ids_.fill(-1);
    for (size_t i = 0; i < bytes_.size(); ++i) {
      ids_[static_cast<unsigned char>(bytes_[i])] = static_cast<int32_t>(i);
    }
  }

  std::string_view kind() const override { return "char"; }
  int32_t vocab_size() const override { return Known() + (HasEscape() ? 1 : 0); }
  bool lossless() const override { return true; }

  void EncodeTo(std::string_view text, const TokenSink& sink) const override {
    TokenBuffer buffer(text, sink);
    for (const char& c : text) {
      buffer.At(&c);
      const auto byte = static_cast<unsigned char>(c);
      if (ids_[byte] >= 0) {
        buffer.Push(ids_[byte]);
        continue;
      }
      buffer.Push(Known());
      for (int shift = 8 - DigitBits(); shift >= 0; shift -= DigitBits()) {
        buffer.Push((byte >> shift) & ((1 << DigitBits()) - 1));
      }
    }
    buffer.Flush();
  }

  std::unique_ptr<TokenDecoder> NewDecoder(bool) const override {
    return std::make_unique<Decoder>(*this);
  }
  std::string TokenBytes(int32_t id) const override {
    return id >= 0 && id < Known() ? std::string(1, bytes_[static_cast<size_t>(id)]) : "";
  }
  Json ToJson() const override { return {{"kind", "char"}, {"bytes", BytesToJson(bytes_)}}; }

 private:
  class Decoder final : public TokenDecoder {
   public:
    explicit Decoder(const CharTokenizer& tokenizer) : tokenizer_(tokenizer) {}

    void Push(int32_t id, std::string* out) override {
      const int bits = tokenizer_.DigitBits();
      if (missing_bits_ > 0 && id >= 0 && id < (1 << bits)) {
        value_ = (value_ << bits) | id;
        missing_bits_ -= bits;
        if (missing_bits_ == 0) *out += static_cast<char>(value_);
        return;
      }
      // An escape that no digits follow (a model may write one) is dropped.
      missing_bits_ = 0;
      value_ = 0;
      if (tokenizer_.HasEscape() && id == tokenizer_.Known()) {
        missing_bits_ = 8;
      } else {
        *out += tokenizer_.TokenBytes(id);
      }
    }

   private:
    const CharTokenizer& tokenizer_;
    int missing_bits_ = 0;
    int value_ = 0;
  };

  int32_t Known() const { return static_cast<int32_t>(bytes_.size()); }
  bool HasEscape() const { return bytes_.size() < 256; }
  int DigitBits() const { return vocab_size() >= 16 ? 4 : 1; }

  std::string bytes_;
  std::array<int32_t, 256> ids_;
};

// The seed's table: any byte has an id, and other ids decode to a question mark.
class SeedCharTokenizer final : public Tokenizer {
 public:
  SeedCharTokenizer(std::string bytes, const std::array<int32_t, 256>& ids, int32_t vocab_size)
      : bytes_(std::move(bytes)), ids_(ids), vocab_size_(vocab_size) {}

  std::string_view kind() const override { return "seed-char"; }
  int32_t vocab_size() const override { return vocab_size_; }
  bool lossless() const override { return false; }

  void EncodeTo(std::string_view text, const TokenSink& sink) const override {
    TokenBuffer buffer(text, sink);
    for (const char& c : text) {
      buffer.At(&c);
      buffer.Push(ids_[static_cast<unsigned char>(c)]);
    }
    buffer.Flush();
  }

  std::unique_ptr<TokenDecoder> NewDecoder(bool) const override { return MakePlainDecoder(*this); }
  std::string TokenBytes(int32_t id) const override {
    if (id < 0 || id >= vocab_size_) return "";
    const auto index = static_cast<size_t>(id);
    return std::string(1, index < bytes_.size() ? bytes_[index] : '?');
  }
  Json ToJson() const override {
    return {{"kind", "seed-char"},
            {"vocab_size", vocab_size_},
            {"bytes", BytesToJson(bytes_)},
            {"ids", ids_}};
  }

 private:
  std::string bytes_;
  std::array<int32_t, 256> ids_;
  int32_t vocab_size_;
};

const Json& Field(const Json& json, const char* field, const std::string& where) {
  const auto found = json.find(field);
  if (found == json.end()) throw InputError(where + ": \"" + field + "\" is missing");
  return *found;
}

}  // namespace

std::unique_ptr<Tokenizer> MakeByteTokenizer() { return std::make_unique<ByteTokenizer>(); }

std::unique_ptr<Tokenizer> MakeCharTokenizer(const std::string& sorted_bytes) {
  return std::make_unique<CharTokenizer>(sorted_bytes);
}

std::unique_ptr<Tokenizer> CharTokenizerFromJson(const Json& json, const std::string& where) {
  const std::string bytes = BytesFromJson(Field(json, "bytes", where), where + ": \"bytes\"");
  const auto not_rising = [](char a, char b) {
    return static_cast<unsigned char>(a) >= static_cast<unsigned char>(b);
  };
  if (bytes.empty() || std::adjacent_find(bytes.begin(), bytes.end(), not_rising) != bytes.end()) {
    throw InputError(where + ": \"bytes\" must be one or more different bytes, sorted");
  }
  return MakeCharTokenizer(bytes);
}

std::unique_ptr<Tokenizer> BuildCharTokenizer(std::span<const std::string_view> texts) {
  std::array<bool, 256> occurs = {};
  for (const std::string_view text : texts) {
    for (const char c : text) occurs[static_cast<unsigned char>(c)] = true;
  }
  std::string bytes;
  for (size_t byte = 0; byte < occurs.size(); ++byte) {
    if (occurs[byte]) bytes += static_cast<char>(byte);
  }
  if (bytes.empty()) throw InputError("the text is empty: there are no characters to learn");
  return MakeCharTokenizer(bytes);
}

std::unique_ptr<Tokenizer> SeedCharTokenizerFromJson(const Json& json, const std::string& where) {
  const std::string bytes = BytesFromJson(Field(json, "bytes", where), where + ": \"bytes\"");
  const auto vocab_size = static_cast<int32_t>(GetInteger(json, "vocab_size", 1, INT32_MAX, where));
  const Json& list = Field(json, "ids", where);
  if (bytes.empty() || bytes.size() > 256 || bytes.size() > static_cast<size_t>(vocab_size)) {
    throw InputError(where + ": \"bytes\" must be 1 to 256 and at most vocab_size bytes");
  }
  if (!list.is_array() || list.size() != 256) {
    throw InputError(where + ": \"ids\" must be a list of 256 ids");
  }
  std::array<int32_t, 256> ids;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!list[i].is_number_integer() || list[i].get<int64_t>() < 0 ||
        list[i].get<uint64_t>() >= bytes.size()) {
      throw InputError(where + ": \"ids\" must be from 0 to " + std::to_string(bytes.size() - 1));
    }
    ids[i] = list[i].get<int32_t>();
  }
  return std::make_unique<SeedCharTokenizer>(bytes, ids, vocab_size);
}

}  // namespace lanewise::model
