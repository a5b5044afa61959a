// The tokenizers of words.
#include <algorithm>
#include <limits>
#include <utility>

#include "model/error.h"
#include "model/tokenizers/kinds.h"

namespace lanewise::model {
namespace {

constexpr int32_t kBytes = 256;
constexpr size_t kLongestWord = 64;      // of a vocabulary entry, its space included
constexpr size_t kLongestSeedWord = 63;  // the seed drops what follows

// Calls word(piece) for each word with the space before it, and separator(c) for the other bytes.
template <typename Word, typename Separator>
void CutWords(std::string_view text, const Word& word, const Separator& separator) {
  size_t i = 0;
  while (i < text.size()) {
    const size_t begin = i;
    if (IsWordSeparator(text[i])) {
      const bool before_word =
          text[i] == ' ' && i + 1 < text.size() && !IsWordSeparator(text[i + 1]);
      ++i;
      if (!before_word) {
        separator(text[begin]);
        continue;
      }
    }
    while (i < text.size() && !IsWordSeparator(text[i])) ++i;
    word(text.substr(begin, i - begin));
  }
}

class WordTokenizer final : public Tokenizer {
 public:
  explicit WordTokenizer(std::vector<std::string> words) : words_(std::move(words)) {
    ids_.reserve(words_.size());
    for (size_t i = 0; i < words_.size(); ++i) {
      ids_.emplace(words_[i], kBytes + static_cast<int32_t>(i));
    }
  }

  std::string_view kind() const override { return "word"; }
  int32_t vocab_size() const override { return kBytes + static_cast<int32_t>(words_.size()); }
  bool lossless() const override { return true; }

  void EncodeTo(std::string_view text, const TokenSink& sink) const override {
    TokenBuffer buffer(text, sink);
    const auto push_byte = [&](char c) { buffer.Push(static_cast<unsigned char>(c)); };
    CutWords(
        text,
        [&](std::string_view piece) {
          buffer.At(&piece.front());
          auto found = ids_.find(piece);
          if (found == ids_.end() && piece[0] == ' ') {
            push_byte(' ');
            piece.remove_prefix(1);
            found = ids_.find(piece);
          }
          if (found != ids_.end()) {
            buffer.Push(found->second);
          } else {
            for (const char c : piece) push_byte(c);
          }
        },
        push_byte);
    buffer.Flush();
  }

  std::unique_ptr<TokenDecoder> NewDecoder(bool) const override { return MakePlainDecoder(*this); }
  std::string TokenBytes(int32_t id) const override {
    if (id < 0 || id >= vocab_size()) return "";
    return id < kBytes ? std::string(1, static_cast<char>(id))
                       : words_[static_cast<size_t>(id - kBytes)];
  }
  Json ToJson() const override {
    Json words = Json::array();
    for (const std::string& word : words_) words.push_back(BytesToJson(word));
    return {{"kind", "word"}, {"words", std::move(words)}};
  }

 private:
  std::vector<std::string> words_;
  IdsByText ids_;
};

struct SeedWords {
  std::vector<std::string> words;
  int32_t vocab_size = 0;
  int32_t unk = 0, pad = 0, space = 0, newline = 0;
};

class SeedWordTokenizer final : public Tokenizer {
 public:
  explicit SeedWordTokenizer(SeedWords data) : data_(std::move(data)) {
    for (size_t i = 0; i < data_.words.size(); ++i) {
      ids_.emplace(data_.words[i], static_cast<int32_t>(i));
    }
  }

  std::string_view kind() const override { return "seed-word"; }
  int32_t vocab_size() const override { return data_.vocab_size; }
  bool lossless() const override { return false; }

  void EncodeTo(std::string_view text, const TokenSink& sink) const override {
    TokenBuffer buffer(text, sink);
    size_t begin = 0;
    for (size_t i = 0; i <= text.size(); ++i) {
      if (i < text.size() && !IsWordSeparator(text[i])) continue;
      buffer.At(text.data() + begin);
      if (i > begin) {
        const auto found = ids_.find(text.substr(begin, std::min(i - begin, kLongestSeedWord)));
        buffer.Push(found == ids_.end() ? data_.unk : found->second);
      }
      if (i < text.size()) EncodeSeparator(text.substr(i, 1), &buffer);
      begin = i + 1;
    }
    buffer.Flush();
  }

  std::unique_ptr<TokenDecoder> NewDecoder(bool) const override { return MakePlainDecoder(*this); }
  std::string TokenBytes(int32_t id) const override {
    const auto index = static_cast<size_t>(id);
    return id >= 0 && index < data_.words.size() ? data_.words[index] : "";
  }
  Json ToJson() const override {
    Json words = Json::array();
    for (const std::string& word : data_.words) words.push_back(BytesToJson(word));
    return {{"kind", "seed-word"},      {"vocab_size", data_.vocab_size},
            {"unk", data_.unk},         {"pad", data_.pad},
            {"space", data_.space},     {"newline", data_.newline},
            {"words", std::move(words)}};
  }

 private:
  // Tabs become spaces, CR and unknown punctuation vanish.
  void EncodeSeparator(std::string_view c, TokenBuffer* buffer) const {
    if (c == " " || c == "\t") {
      buffer->Push(data_.space);
    } else if (c == "\n") {
      buffer->Push(data_.newline);
    } else if (c != "\r") {
      const auto found = ids_.find(c);
      if (found != ids_.end()) buffer->Push(found->second);
    }
  }

  SeedWords data_;
  IdsByText ids_;
};

std::vector<std::string> WordsFromJson(const Json& json, const std::string& where) {
  const auto list = json.find("words");
  if (list == json.end() || !list->is_array() || list->size() > static_cast<size_t>(kMostEntries)) {
    throw InputError(where + ": \"words\" must be a list of at most " +
                     std::to_string(kMostEntries) + " words");
  }
  std::vector<std::string> words;
  words.reserve(list->size());
  for (const Json& word : *list) words.push_back(BytesFromJson(word, where + ": \"words\""));
  return words;
}

// One entry for 250 bytes of text: a word of the vocabulary is then seen often enough to be
// learned, and the embeddings stay in proportion to the text.
int32_t DefaultVocabulary(uint64_t bytes) {
  constexpr uint64_t kMost = 32'767;
  return static_cast<int32_t>(std::clamp<uint64_t>(kBytes + bytes / 250, 512, kMost));
}

}  // namespace

bool IsWordSeparator(char c) {
  switch (c) {
    case ' ':
    case '\n':
    case '\t':
    case '\r':
    case '.':
    case ',':
    case '!':
    case '?':
    case ':':
    case ';':
    case '"':
    case '\'':
    case '(':
    case ')':
    case '[':
    case ']':
    case '{':
    case '}':
    case '-':
    case '/':
    case '\\':
    case '@':
    case '#':
    case '$':
    case '%':
    case '&':
    case '*':
    case '+':
    case '=':
    case '<':
    case '>':
    case '|':
    case '~':
    case '`':
    case '^':
      return true;
    default:
      return false;
  }
}

std::unique_ptr<Tokenizer> MakeWordTokenizer(std::vector<std::string> words) {
  return std::make_unique<WordTokenizer>(std::move(words));
}

std::unique_ptr<Tokenizer> WordTokenizerFromJson(const Json& json, const std::string& where) {
  return MakeWordTokenizer(WordsFromJson(json, where));
}

std::unique_ptr<Tokenizer> BuildWordTokenizer(std::span<const std::string_view> texts,
                                              const TokenizerOptions& options) {
  constexpr size_t kReport = size_t{1} << 20;
  int32_t max_vocab = options.max_vocab;
  uint64_t bytes = 0;
  std::unordered_map<std::string_view, uint64_t> counts;
  for (const std::string_view text : texts) {
    size_t report = kReport;
    CutWords(
        text,
        [&](std::string_view piece) {
          if (piece.size() > 1 && piece.size() <= kLongestWord) ++counts[piece];
          const auto at = static_cast<size_t>(piece.data() - text.data());
          if (at < report) return;
          report = at + kReport;
          if (options.progress) options.progress(bytes + at);
        },
        [](char) {});
    bytes += text.size();
  }
  if (max_vocab == 0) max_vocab = DefaultVocabulary(bytes);
  if (max_vocab < kBytes || max_vocab > kMostEntries) {
    throw UsageError("a word vocabulary has from 256 to " + std::to_string(kMostEntries) +
                     " entries, the 256 bytes included; asked for " + std::to_string(max_vocab));
  }
  // A word seen once teaches nothing about itself, but its bytes teach how unknown words are spelt.
  std::vector<std::pair<std::string_view, uint64_t>> ranked;
  for (const auto& entry : counts) {
    if (entry.second > 1) ranked.push_back(entry);
  }
  const auto before = [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  };
  const size_t count = std::min(ranked.size(), static_cast<size_t>(max_vocab - kBytes));
  std::partial_sort(ranked.begin(), ranked.begin() + static_cast<ptrdiff_t>(count), ranked.end(),
                    before);
  std::vector<std::string> words;
  for (size_t i = 0; i < count; ++i) words.emplace_back(ranked[i].first);
  return MakeWordTokenizer(std::move(words));
}

std::unique_ptr<Tokenizer> SeedWordTokenizerFromJson(const Json& json, const std::string& where) {
  SeedWords data;
  data.words = WordsFromJson(json, where);
  if (data.words.empty()) throw InputError(where + ": \"words\" is empty");
  const auto count = static_cast<int64_t>(data.words.size());
  data.vocab_size = static_cast<int32_t>(GetInteger(json, "vocab_size", count, INT32_MAX, where));
  const auto id = [&](const char* field) {
    return static_cast<int32_t>(GetInteger(json, field, 0, count - 1, where));
  };
  data.unk = id("unk");
  data.pad = id("pad");
  data.space = id("space");
  data.newline = id("newline");
  return std::make_unique<SeedWordTokenizer>(std::move(data));
}

}  // namespace lanewise::model
