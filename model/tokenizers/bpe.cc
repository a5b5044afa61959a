// A vocabulary of byte-pair merges, made from texts. Source: Sennrich, Haddow and Birch 2016,
// arXiv:1508.07909; the pieces are those of SentencePiece and llama2.c, which tokenizers/llama2c.cc
// encodes with.
#include <algorithm>
#include <cctype>
#include <queue>
#include <utility>

#include "model/error.h"
#include "model/tokenizers/kinds.h"

namespace lanewise::model {
namespace {

constexpr int32_t kSpecial = 3 + 256;  // <unk>, <s>, </s> and the bytes
constexpr size_t kLongestPiece = 32;   // bytes that a counted word has at most

enum class Kind { kSpace, kLetter, kDigit, kOther };

Kind KindOf(char c) {
  const auto byte = static_cast<unsigned char>(c);
  if (c == ' ') return Kind::kSpace;
  if (byte >= 0x80 || std::isalpha(byte) != 0) return Kind::kLetter;
  return std::isdigit(byte) != 0 ? Kind::kDigit : Kind::kOther;
}

// Calls word(piece) for pieces of text within which pairs merge: letters, one digit, runs of one
// other character or of several, each with the space before it; spaces before these. An apostrophe
// between letters is one of them.
template <typename Word>
void CutPieces(std::string_view text, const Word& word) {
  size_t i = 0;
  while (i < text.size()) {
    const size_t begin = i;
    while (i < text.size() && text[i] == ' ') ++i;
    if (i == text.size()) return word(text.substr(begin));
    if (i > begin + 1) word(text.substr(begin, i - 1 - begin));
    const size_t first = i > begin ? i - 1 : i;
    const Kind kind = KindOf(text[i]);
    ++i;
    const auto goes_on = [&] {
      if (text[i] == '\'' && kind == Kind::kLetter) {
        return i + 1 < text.size() && KindOf(text[i + 1]) == Kind::kLetter;
      }
      return KindOf(text[i]) == kind && kind != Kind::kDigit &&
             (text[i] == '\n') == (text[i - 1] == '\n');
    };
    while (i < text.size() && (IsContinuation(text[i]) || (i - first < kLongestPiece && goes_on())))
      ++i;
    word(text.substr(first, i - first));
  }
}

// Calls character(bytes) for each; bytes that are no UTF-8 come alone.
template <typename Character>
void CutCharacters(std::string_view text, const Character& character) {
  size_t i = 0;
  while (i < text.size()) {
    size_t end = i + 1;
    while (end < text.size() && end - i < 4 && IsContinuation(text[end])) ++end;
    character(text.substr(i, end - i));
    i = end;
  }
}

class BpeBuilder {
 public:
  explicit BpeBuilder(size_t max_vocab) : max_vocab_(max_vocab) {
    tokens_ = {"<unk>", "<s>", "</s>"};
    tokens_.resize(kSpecial);  // bytes are known by their ids
  }

  // The most frequent characters, then merges of the most frequent pairs.
  std::unique_ptr<Tokenizer> Build(const std::unordered_map<std::string_view, uint64_t>& pieces) {
    AddCharacters(pieces);
    const size_t characters = tokens_.size();
    for (const auto& [piece, count] : pieces) AddWords(piece, count);
    for (size_t w = 0; w < words_.size(); ++w) Count(w, 1);
    for (const auto& [pair, entry] : pairs_) queue_.push({entry.count, pair});
    while (tokens_.size() < max_vocab_ && !queue_.empty()) {
      const auto [count, pair] = queue_.top();
      queue_.pop();
      if (count < 2) break;
      const uint64_t now = pairs_.at(pair).count;
      if (now == count) {
        Merge(pair);
      } else {
        queue_.push({now, pair});
      }
    }
    // The earlier a merge, the better. Characters are never the result of one.
    std::vector<float> scores(tokens_.size());
    for (size_t i = characters; i < tokens_.size(); ++i) {
      scores[i] = -static_cast<float>(i - characters);
    }
    return MakeLlama2cTokenizer("bpe", std::move(tokens_), std::move(scores));
  }

 private:
  struct Word {
    std::vector<int32_t> symbols;
    uint64_t count;
  };
  struct Pair {
    uint64_t count = 0;
    std::vector<size_t> words;  // that have or had it
  };
  struct Candidate {
    uint64_t count, pair;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  static uint64_t PairOf(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }

  // Half of the vocabulary at most; other characters are written in bytes.
  void AddCharacters(const std::unordered_map<std::string_view, uint64_t>& pieces) {
    std::unordered_map<std::string_view, uint64_t> counts;
    for (const auto& [piece, count] : pieces) {
      const uint64_t n = count;
      CutCharacters(piece, [&](std::string_view c) { counts[c] += n; });
    }
    std::vector<std::pair<std::string_view, uint64_t>> ranked;
    for (const auto& entry : counts) {
      const bool ascii = static_cast<unsigned char>(entry.first[0]) < 0x80;
      if (ascii || (entry.first.size() > 1 && entry.second > 1)) ranked.push_back(entry);
    }
    std::ranges::sort(ranked, [](const auto& a, const auto& b) {
      return a.second != b.second ? a.second > b.second : a.first < b.first;
    });
    const size_t most = (max_vocab_ - kSpecial + 1) / 2;
    for (size_t i = 0; i < std::min(most, ranked.size()); ++i) Add(std::string(ranked[i].first));
  }

  int32_t Add(std::string text) {
    const auto [found, is_new] = ids_.emplace(text, static_cast<int32_t>(tokens_.size()));
    if (is_new) tokens_.push_back(std::move(text));
    return found->second;
  }

  // A piece is cut at characters that have no token.
  void AddWords(std::string_view piece, uint64_t count) {
    Word word{{}, count};
    const auto end = [&] {
      if (word.symbols.size() > 1) words_.push_back(word);
      word.symbols.clear();
    };
    CutCharacters(piece, [&](std::string_view c) {
      const auto found = ids_.find(c);
      if (found == ids_.end()) return end();
      word.symbols.push_back(found->second);
    });
    end();
  }

  // Adds (1) or takes away (-1) a word's pairs.
  void Count(size_t w, int sign) {
    const Word& word = words_[w];
    for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      Pair& pair = pairs_[PairOf(word.symbols[i], word.symbols[i + 1])];
      pair.count += sign > 0 ? word.count : -word.count;
      if (sign > 0 && (pair.words.empty() || pair.words.back() != w)) pair.words.push_back(w);
    }
  }

  void Merge(uint64_t pair) {
    const auto left = static_cast<int32_t>(pair >> 32), right = static_cast<int32_t>(pair);
    // Two pairs may have the same text: then it is one token.
    const int32_t merged =
        Add(tokens_[static_cast<size_t>(left)] + tokens_[static_cast<size_t>(right)]);
    std::vector<size_t> words = std::move(pairs_.at(pair).words);
    pairs_.at(pair).words.clear();
    std::ranges::sort(words);
    words.erase(std::unique(words.begin(), words.end()), words.end());
    std::vector<uint64_t> changed;
    for (const size_t w : words) {
      std::vector<int32_t>& symbols = words_[w].symbols;
      Count(w, -1);
      size_t kept = 0;
      for (size_t i = 0; i < symbols.size(); ++i) {
        const bool both = i + 1 < symbols.size() && symbols[i] == left && symbols[i + 1] == right;
        symbols[kept++] = both ? merged : symbols[i];
        if (both) ++i;
      }
      symbols.resize(kept);
      Count(w, 1);
      for (size_t i = 0; i + 1 < kept; ++i) {
        if (symbols[i] != merged && symbols[i + 1] != merged) continue;
        changed.push_back(PairOf(symbols[i], symbols[i + 1]));
      }
    }
    std::ranges::sort(changed);
    changed.erase(std::unique(changed.begin(), changed.end()), changed.end());
    for (const uint64_t next : changed) queue_.push({pairs_.at(next).count, next});
  }

  size_t max_vocab_;
  std::vector<std::string> tokens_;
  IdsByText ids_;
  std::vector<Word> words_;
  std::unordered_map<uint64_t, Pair> pairs_;
  std::priority_queue<Candidate> queue_;
};

// As many pieces as the text can teach: 512 for ten kilobytes, 4096 for five megabytes.
size_t DefaultVocabulary(uint64_t bytes) {
  size_t size = 512;
  while (size < 16'384 && static_cast<uint64_t>(size) * size / 4 < bytes) size *= 2;
  return size;
}

}  // namespace

std::unique_ptr<Tokenizer> BuildBpeTokenizer(std::span<const std::string_view> texts,
                                             const TokenizerOptions& options) {
  constexpr size_t kReport = size_t{1} << 20;
  uint64_t bytes = 0;
  std::unordered_map<std::string_view, uint64_t> pieces;
  for (const std::string_view text : texts) {
    size_t report = kReport;
    CutPieces(text, [&](std::string_view piece) {
      ++pieces[piece];
      const auto at = static_cast<size_t>(piece.data() - text.data());
      if (at < report) return;
      report = at + kReport;
      if (options.progress) options.progress(bytes + at);
    });
    bytes += text.size();
  }
  const int32_t asked = options.max_vocab;
  if (asked != 0 && (asked <= kSpecial || asked > kMostEntries)) {
    throw UsageError("a bpe vocabulary has from " + std::to_string(kSpecial + 1) + " to " +
                     std::to_string(kMostEntries) + " entries, " + std::to_string(kSpecial) +
                     " bytes and marks included; asked for " + std::to_string(asked));
  }
  return BpeBuilder(asked != 0 ? static_cast<size_t>(asked) : DefaultVocabulary(bytes))
      .Build(pieces);
}

}  // namespace lanewise::model
