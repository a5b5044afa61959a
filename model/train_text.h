// From files of text to what a Trainer takes: corpus, split, tokenizer, tokens.
#ifndef LANEWISE_MODEL_TRAIN_TEXT_H_
#define LANEWISE_MODEL_TRAIN_TEXT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/tokenizer.h"
#include "model/train_options.h"
#include "model/trainer.h"

namespace lanewise::model {

struct TrainText {
  std::unique_ptr<Tokenizer> tokenizer;
  TrainData data;
  uint64_t train_bytes = 0, validation_bytes = 0;
  size_t files = 0;                  // that were read
  std::vector<std::string> notices;  // sentences for the user
};

// Reads files and folders (see TextCorpus) and cuts off the last `val_fraction` for validation. The
// tokenizer is `known` (a run's or another model's) or, where that is null, a new one of this kind,
// made from the training part with at most `max_vocab` entries if it has words or merges (0:
// chosen). InputError for data from which nothing can be learned. `progress` is
// called now and then with the share that is done; what it throws ends the reading.
TrainText ReadTrainText(FileSystem& files, const std::vector<std::string>& paths,
                        double val_fraction, const std::string& kind, int32_t max_vocab,
                        const Json& known, const std::function<void(double done)>& progress = {});

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_TRAIN_TEXT_H_
