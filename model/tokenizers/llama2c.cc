// llama2.c's tokenizer: byte-pair merges, best score first.
#include <algorithm>
#include <array>
#include <cmath>
#include <queue>
#include <utility>

#include "model/error.h"
#include "model/tokenizers/kinds.h"

namespace lanewise::model {
namespace {

constexpr int32_t kBos = 1;
constexpr int32_t kEos = 2;
constexpr int32_t kFirstByte = 3;
constexpr int32_t kFirstText = kFirstByte + 256;
// Words that are remembered while a text is encoded, and their bytes, at most.
constexpr size_t kMostKnown = size_t{1} << 16;
constexpr size_t kLongestKnown = 32;

// Merges the symbols of one segment of text. Kept between segments for its memory.
class Merger {
 public:
  Merger(const IdsByText& ids, const std::vector<float>& scores, size_t longest)
      : ids_(ids), scores_(scores), longest_(longest) {}

  void Encode(std::string_view text, std::vector<int32_t>* out) {
    text_ = text;
    symbols_.clear();
    SplitCharacters();
    for (size_t i = 0; i + 1 < symbols_.size(); ++i) Consider(i);
    while (!queue_.empty()) {
      const Candidate best = queue_.top();
      queue_.pop();
      Symbol& left = symbols_[best.left];
      // The pair may have changed since it was found.
      if (left.length == 0 || left.next == kNone) continue;
      Symbol& right = symbols_[left.next];
      if (left.length + right.length != best.length) continue;
      left.id = best.id;
      left.length = best.length;
      right.length = 0;
      left.next = right.next;
      if (left.next != kNone) symbols_[left.next].previous = best.left;
      Consider(best.left);
      if (left.previous != kNone) Consider(left.previous);
    }
    for (const Symbol& symbol : symbols_) {
      if (symbol.length > 0) out->push_back(symbol.id);
    }
  }

 private:
  static constexpr size_t kNone = SIZE_MAX;

  struct Symbol {
    size_t begin, length;  // length 0: merged into another
    size_t previous, next;
    int32_t id;
    bool is_byte;  // stands for a character without a token: never merges
  };
  struct Candidate {
    float score;
    size_t left, length;
    int32_t id;
    bool operator<(const Candidate& other) const {
      return score != other.score ? score < other.score : left > other.left;
    }
  };

  void Append(size_t begin, size_t length, int32_t id, bool is_byte) {
    const size_t index = symbols_.size();
    if (index > 0) symbols_.back().next = index;
    symbols_.push_back({begin, length, index == 0 ? kNone : index - 1, kNone, id, is_byte});
  }

  void SplitCharacters() {
    size_t i = 0;
    while (i < text_.size()) {
      size_t end = i + 1;
      while (end < text_.size() && end - i < 4 && IsContinuation(text_[end])) ++end;
      const auto found = ids_.find(text_.substr(i, end - i));
      if (found != ids_.end()) {
        Append(i, end - i, found->second, false);
      } else {
        for (size_t b = i; b < end; ++b) {
          Append(b, 1, kFirstByte + static_cast<unsigned char>(text_[b]), true);
        }
      }
      i = end;
    }
  }

  void Consider(size_t index) {
    const Symbol& left = symbols_[index];
    if (left.next == kNone) return;
    const Symbol& right = symbols_[left.next];
    const size_t length = left.length + right.length;
    if (left.is_byte || right.is_byte || length > longest_) return;
    const auto found = ids_.find(text_.substr(left.begin, length));
    if (found == ids_.end()) return;
    queue_.push({scores_[static_cast<size_t>(found->second)], index, length, found->second});
  }

  const IdsByText& ids_;
  const std::vector<float>& scores_;
  size_t longest_;
  std::string_view text_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate> queue_;
};

class Llama2cTokenizer final : public Tokenizer {
 public:
  Llama2cTokenizer(std::string_view kind, std::vector<std::string> tokens,
                   std::vector<float> scores)
      : kind_(kind), tokens_(std::move(tokens)), scores_(std::move(scores)) {
    for (size_t i = kFirstText; i < tokens_.size(); ++i) {
      const std::string& token = tokens_[i];
      if (token.empty()) continue;
      ids_.emplace(token, static_cast<int32_t>(i));
      longest_ = std::max(longest_, token.size());
      for (size_t c = 1; c < token.size(); ++c) {
        if (token[c] == ' ' && token[c - 1] != ' ') cut_at_spaces_ = false;
      }
    }
  }

  std::string_view kind() const override { return kind_; }
  int32_t vocab_size() const override { return static_cast<int32_t>(tokens_.size()); }
  bool lossless() const override { return true; }
  int32_t bos_id() const override { return kBos; }
  int32_t eos_id() const override { return kEos; }

  void EncodeTo(std::string_view text, const TokenSink& sink) const override {
    if (text.empty()) return;
    TokenBuffer buffer(text, sink);
    Merger merger(ids_, scores_, longest_);
    // The prefixed space belongs to the first segment. Where no token has a space after another
    // character, nothing merges across the beginning of a word: words are encoded one by one.
    size_t end = SegmentEnd(text, 0);
    const std::string first = " " + std::string(text.substr(0, end));
    std::vector<int32_t> ids;
    merger.Encode(first, &ids);
    for (const int32_t id : ids) buffer.Push(id);
    // Few words make most of a text: those that were met are not merged again.
    std::unordered_map<std::string_view, std::vector<int32_t>> known;
    while (end < text.size()) {
      const size_t begin = end;
      buffer.At(text.data() + begin);
      end = SegmentEnd(text, begin);
      const std::string_view segment = text.substr(begin, end - begin);
      const auto found = known.find(segment);
      if (found != known.end()) {
        for (const int32_t id : found->second) buffer.Push(id);
        continue;
      }
      ids.clear();
      merger.Encode(segment, &ids);
      for (const int32_t id : ids) buffer.Push(id);
      if (segment.size() <= kLongestKnown && known.size() < kMostKnown) known.emplace(segment, ids);
    }
    buffer.Flush();
  }

  std::unique_ptr<TokenDecoder> NewDecoder(bool at_start) const override {
    return std::make_unique<Decoder>(*this, at_start);
  }

  std::string TokenBytes(int32_t id) const override {
    if (id < 0 || id >= vocab_size() || id == kBos || id == kEos) return "";
    if (id >= kFirstByte && id < kFirstText)
      return std::string(1, static_cast<char>(id - kFirstByte));
    return tokens_[static_cast<size_t>(id)];
  }

  Json ToJson() const override {
    Json tokens = Json::array();
    for (const std::string& token : tokens_) tokens.push_back(BytesToJson(token));
    return {{"kind", kind_}, {"tokens", std::move(tokens)}, {"scores", scores_}};
  }

 private:
  class Decoder final : public TokenDecoder {
   public:
    Decoder(const Llama2cTokenizer& tokenizer, bool at_start)
        : tokenizer_(tokenizer), drop_space_(at_start) {}

    void Push(int32_t id, std::string* out) override {
      if (id == kBos) {
        drop_space_ = true;
        return;
      }
      const std::string bytes = tokenizer_.TokenBytes(id);
      const bool drop = std::exchange(drop_space_, false) && !bytes.empty() && bytes[0] == ' ';
      out->append(bytes, drop ? 1 : 0);
    }

   private:
    const Llama2cTokenizer& tokenizer_;
    bool drop_space_;
  };

  size_t SegmentEnd(std::string_view text, size_t begin) const {
    if (!cut_at_spaces_) return text.size();
    for (size_t i = begin + 1; i < text.size(); ++i) {
      if (text[i] == ' ' && text[i - 1] != ' ') return i;
    }
    return text.size();
  }

  std::string kind_;
  std::vector<std::string> tokens_;
  std::vector<float> scores_;
  IdsByText ids_;
  size_t longest_ = 0;
  bool cut_at_spaces_ = true;
};

}  // namespace

std::unique_ptr<Tokenizer> Llama2cTokenizerFromJson(const Json& json, const std::string& where) {
  const auto tokens = json.find("tokens");
  const auto scores = json.find("scores");
  if (tokens == json.end() || !tokens->is_array() || tokens->size() < kFirstText) {
    throw InputError(where + ": \"tokens\" must be a list of at least 259 tokens");
  }
  if (scores == json.end() || !scores->is_array() || scores->size() != tokens->size()) {
    throw InputError(where + ": \"scores\" must have an entry for each token");
  }
  std::vector<std::string> texts;
  std::vector<float> values;
  for (size_t i = 0; i < tokens->size(); ++i) {
    texts.push_back(BytesFromJson((*tokens)[i], where + ": \"tokens\""));
    const Json& score = (*scores)[i];
    if (!score.is_number() || !std::isfinite(score.get<float>())) {
      throw InputError(where + ": \"scores\" must be finite numbers");
    }
    values.push_back(score.get<float>());
  }
  return MakeLlama2cTokenizer(GetString(json, "kind", where), std::move(texts), std::move(values));
}

std::unique_ptr<Tokenizer> MakeLlama2cTokenizer(std::string_view kind,
                                                std::vector<std::string> tokens,
                                                std::vector<float> scores) {
  return std::make_unique<Llama2cTokenizer>(kind, std::move(tokens), std::move(scores));
}

}  // namespace lanewise::model
