// Texts for training and evaluation: files, the tokens of them, and batches of windows.
#ifndef LANEWISE_MODEL_DATA_H_
#define LANEWISE_MODEL_DATA_H_

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "model/file.h"
#include "model/tokenizer.h"

namespace lanewise::model {

// One or several files, in a fixed order; large ones are mapped. A folder stands for all text files
// in it and below, sorted by path; hidden files and those with a NUL in their first 4 KiB are left
// out. InputError for what is missing, empty, or has no text.
class TextCorpus {
 public:
  TextCorpus(FileSystem& files, const std::vector<std::string>& paths);

  const std::vector<std::string_view>& texts() const { return texts_; }  // none is empty
  const std::vector<std::string>& paths() const { return paths_; }
  uint64_t bytes() const { return bytes_; }
  // Of all texts and their borders: tells whether the data are those of a checkpoint.
  uint64_t Hash() const;
  const std::vector<std::string>& notices() const { return notices_; }
  bool repeated() const { return repeated_; }  // a file is read more than once

 private:
  void FindRepeated(FileSystem& files);

  std::vector<MappedFile> files_;
  std::vector<std::string_view> texts_;
  std::vector<std::string> paths_;
  std::vector<std::string> notices_;
  uint64_t bytes_ = 0;
  bool repeated_ = false;
};

// The texts cut in two: all but the last `fraction` of the bytes, and the rest. The cut is moved
// forward out of a UTF-8 sequence.
struct TextSplit {
  std::vector<std::string_view> train;
  std::vector<std::string_view> validation;
};
TextSplit SplitTexts(std::span<const std::string_view> texts, double fraction);

// Token ids in one, two or four bytes each, as the vocabulary needs.
class TokenArray {
 public:
  TokenArray() = default;
  explicit TokenArray(int32_t vocab_size);
  // std::out_of_range for an id that is none of the vocabulary's.
  void Append(std::span<const int32_t> ids);
  int32_t vocab_size() const { return vocab_size_; }

  uint64_t size() const;
  int32_t operator[](uint64_t index) const;
  // Ids [first, first + out.size()).
  void Copy(uint64_t first, std::span<int32_t> out) const;
  uint64_t MemoryBytes() const;
  uint64_t bytes = 0;  // of text that the tokens stand for; 0 where unknown

 private:
  int32_t vocab_size_ = 0;
  // Grow in pieces: a vector would hold a text two or three times while it grows.
  std::variant<std::deque<uint8_t>, std::deque<uint16_t>, std::deque<int32_t>> ids_;
};

// Tokenizes the texts one after the other; each begins with the tokenizer's BOS, if it has one.
TokenArray Tokenize(const Tokenizer& tokenizer, std::span<const std::string_view> texts,
                    const ReadProgress& progress = {});

// About `tokens` of a text in runs that are evenly spaced over it: its parts differ too much for a
// beginning to stand for the whole.
TokenArray Excerpt(const TokenArray& all, uint64_t tokens);

// Reads whitespace-separated ids; InputError names the line of what is no id below vocab_size.
TokenArray ReadTokenIds(FileSystem& files, const std::string& path, int32_t vocab_size);

// Where a run is in its data. Stored in checkpoints: the next batch follows from it alone.
struct DataPosition {
  uint64_t epoch = 0;
  uint64_t index = 0;  // windows (shuffled) or steps (sequential) taken in this epoch

  bool operator==(const DataPosition&) const = default;
};

struct BatchInfo {
  uint64_t targets = 0;     // that are not ignored
  bool reset_state = true;  // the rows do not go on from those of the batch before
};

// Batches of `rows` windows of `ctx` tokens. In an epoch every token but the first is a target
// exactly once: windows at the ends are filled up with the ignored target -1 (input 0).
//
// Shuffled: windows in an order that is a permutation keyed by (seed, epoch), cut at another offset
// in each epoch; rows are independent and a batch may hold the end of one epoch and the start of
// the next. Sequential: row r reads the r-th part of the tokens, a window a step, so that state can
// be carried from batch to batch; each epoch starts elsewhere, with reset_state.
class BatchSource {
 public:
  struct Options {
    size_t rows = 1;
    size_t ctx = 1;
    bool sequential = false;
    uint64_t seed = 0;
  };

  // `tokens` outlives the source. InputError below two tokens. A text shorter than a window makes
  // the window shorter: ctx() says what it is, notice() says so in a sentence.
  BatchSource(const TokenArray& tokens, const Options& options);

  size_t rows() const { return options_.rows; }
  size_t ctx() const { return options_.ctx; }
  const std::string& notice() const { return notice_; }
  // Batches of such a source after which every target of so many tokens was seen once, on average.
  static double BatchesPerEpoch(uint64_t tokens, const Options& options);

  // Fills inputs and targets, rows()·ctx() each, and moves on. Does not allocate.
  BatchInfo Next(std::span<int32_t> inputs, std::span<int32_t> targets);

  DataPosition position() const { return position_; }
  void set_position(const DataPosition& position);  // InputError where it is none of this source

 private:
  uint64_t WindowsInEpoch(uint64_t epoch) const;
  uint64_t OffsetOf(uint64_t epoch) const;
  void NextShuffled(std::span<int32_t> inputs, std::span<int32_t> targets, BatchInfo* info);
  void NextSequential(std::span<int32_t> inputs, std::span<int32_t> targets, BatchInfo* info);

  const TokenArray& tokens_;
  Options options_;
  std::string notice_;
  DataPosition position_;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_DATA_H_
