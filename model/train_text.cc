#include "model/train_text.h"

#include "model/data.h"
#include "model/error.h"

namespace lanewise::model {

namespace {

uint64_t BytesOf(const std::vector<std::string_view>& texts) {
  uint64_t bytes = 0;
  for (const std::string_view text : texts) bytes += text.size();
  return bytes;
}

}  // namespace

TrainText ReadTrainText(FileSystem& files, const std::vector<std::string>& paths,
                        double val_fraction, const std::string& kind, int32_t max_vocab,
                        const Json& known, const std::function<void(double done)>& progress) {
  const TextCorpus corpus(files, paths);
  const TextSplit split = SplitTexts(corpus.texts(), val_fraction);
  TrainText text;
  text.files = corpus.paths().size();
  text.notices = corpus.notices();
  if (corpus.repeated() && val_fraction > 0) {
    text.notices.push_back(
        "a text that is read twice may be in both parts of the split: validation of what was "
        "trained on");
  }
  text.train_bytes = BytesOf(split.train);
  text.validation_bytes = BytesOf(split.validation);
  if (text.train_bytes < 2) {
    throw InputError(corpus.paths().front() + ": " + std::to_string(text.train_bytes) +
                     " bytes are left for training after the last " +
                     std::to_string(text.validation_bytes) +
                     " went to validation; more text is needed");
  }
  const uint64_t built = known.is_null() ? text.train_bytes : 0;
  const uint64_t all = built + text.train_bytes + text.validation_bytes;
  const auto after = [&](uint64_t before) {
    return [&progress, before, all](uint64_t bytes) {
      if (progress) progress(static_cast<double>(before + bytes) / static_cast<double>(all));
    };
  };
  text.tokenizer = known.is_null() ? BuildTokenizer(kind, split.train,
                                                    {.max_vocab = max_vocab, .progress = after(0)})
                                   : MakeTokenizer(known, "the run's tokenizer");
  text.data.train = Tokenize(*text.tokenizer, split.train, after(built));
  text.data.validation =
      Tokenize(*text.tokenizer, split.validation, after(built + text.train_bytes));
  text.data.hash = corpus.Hash();
  if (text.data.train.size() < 2) {
    throw InputError(corpus.paths().front() + ": " + std::to_string(text.data.train.size()) +
                     " tokens are left for training after the last " +
                     std::to_string(text.validation_bytes) +
                     " bytes went to validation; training needs two or more");
  }
  if (val_fraction > 0 && text.data.validation.size() < 2) {
    text.notices.push_back("the text is too short for a validation split: no validation loss");
  }
  return text;
}

}  // namespace lanewise::model
