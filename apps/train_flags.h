// The options that describe a training, for `train` and `plan`.
#ifndef LANEWISE_APPS_TRAIN_FLAGS_H_
#define LANEWISE_APPS_TRAIN_FLAGS_H_

#include <string>
#include <vector>

#include "apps/options.h"
#include "model/train_options.h"
#include "model/train_text.h"
#include "model/trainer.h"

namespace lanewise::apps {

class TrainFlags {
 public:
  void Declare(Options& options);
  // Takes what was given to options(). UsageError names what is out of range.
  void Check();

  const model::TrainOptions& options() const { return options_; }
  const std::vector<std::string>& data() const { return data_; }
  // Of --vocab, what a new tokenizer may have; 0: chosen.
  int32_t MaxVocab() const;

 private:
  void DeclareModel(Options& options);
  void DeclareLength(Options& options);
  void DeclareOptimizer(Options& options);
  void DeclareEvaluation(Options& options);

  model::TrainOptions options_;
  std::vector<std::string> data_;
  std::string schedule_;
  std::optional<bool> auto_config_;
};

// With --from: UsageError for options that say what that model has already.
void CheckFromOptions(const Options& options);

// The sizes of a model that exists, as AutoConfigure wants them; its kind goes into the options.
model::Json KnownConfig(model::Json config, model::TrainOptions* options);

// The plan for this text, with the tokenizer's vocabulary; `known` is another model's configuration
// that the weights come from (null: sizes are chosen).
model::TrainPlan MakePlan(const TrainFlags& flags, const model::TrainText& text,
                          const model::Json& known, double machine_gflops);

// The plan of a run that goes on, changed as the options ask. UsageError with both values where
// they ask for a change that a run cannot take.
model::TrainPlan ResumePlan(const Options& options, const TrainFlags& flags,
                            const model::TrainPlan& stored, const std::string& tokenizer_kind);

// Tokens that a step trains: with a text on average, or where one is assumed as many as it holds.
double TokensOfStep(const model::TrainPlan& plan, const model::TrainText& text);

// What will be done, in lines for people.
struct PlanFacts {
  const model::TrainPlan* plan = nullptr;
  const model::TrainText* text = nullptr;  // of no files: one that is assumed
  model::MemoryPlan memory;
  size_t threads = 0;
  double machine_gflops = 0;
};
std::vector<std::string> DescribePlan(const PlanFacts& facts);
std::string DescribeModel(const model::Json& config);  // "slot_rnn 4 × 128, 4 heads, …"

}  // namespace lanewise::apps

#endif  // LANEWISE_APPS_TRAIN_FLAGS_H_
