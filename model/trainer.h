// The training loop. Prints nothing: an observer is told what happens, a stop token is asked after
// each step.
#ifndef LANEWISE_MODEL_TRAINER_H_
#define LANEWISE_MODEL_TRAINER_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/data.h"
#include "model/evaluate.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "model/train_options.h"
#include "runtime/parallel.h"
#include "runtime/profiler.h"

namespace lanewise::model {

struct StepReport {
  int64_t step = 0;
  int64_t steps = 0;
  double loss = 0;  // plain cross-entropy of the step's tokens, nats
  double lr = 0;
  double grad_norm = 0;
  uint64_t tokens = 0;  // trained so far
  double tokens_per_second = 0;
  double mfu = 0;      // of the peak measured at the start; 0 when unknown
  double seconds = 0;  // of training so far, all sessions together
  double seconds_left = 0;
  double smooth_loss = 0;  // over about the last 20 steps
  bool skipped = false;    // loss or gradient was not finite: nothing was updated
};

struct EvalReport {
  int64_t step = 0;
  int64_t steps = 0;
  double seconds = 0;     // of training so far, all sessions together
  double train_loss = 0;  // over about the last 20 steps
  double val_loss = 0;
  double val_bits_per_byte = 0;
  bool whole = false;  // over the whole validation split
  bool last = false;   // over as much of the split as a training of this length has time for
  uint64_t tokens = 0;
  bool best = false;
  std::string sample;  // generated text; empty without one
};

struct FinishReport {
  int64_t step = 0;
  uint64_t tokens = 0;
  double seconds = 0;
  std::optional<double> train_loss;  // none before the first step
  std::optional<double> val_loss, val_bits_per_byte;
  // The last evaluation and the best of those that are compared, over the same part of the split.
  std::optional<double> last_val_loss, best_val_loss;
  uint64_t peak_memory_bytes = 0;
  bool finished = false;  // false: stopped early, can be resumed
};

class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual void OnNotice(const std::string& /*sentence*/) {}
  virtual void OnStep(const StepReport& /*report*/) {}
  virtual void OnEvaluateProgress(int64_t /*step*/, double /*done*/) {}
  virtual void OnEvaluate(const EvalReport& /*report*/) {}
  virtual void OnSave(int64_t /*step*/, const std::string& /*folder*/) {}
};

struct TrainData {
  TokenArray train;
  TokenArray validation;  // may be empty
  uint64_t hash = 0;      // of the corpus
};

struct TrainerSetup {
  FileSystem* files = nullptr;                    // needed with a run folder
  std::string run_folder = {};                    // empty: nothing is written
  const runtime::Scheduler* scheduler = nullptr;  // needed
  runtime::Profiler* profiler = nullptr;          // optional
  double peak_gflops = 0;                         // for MFU
  TrainObserver* observer = nullptr;
  const std::atomic<int>* stop = nullptr;  // nonzero: finish the step, save, return
  int64_t stop_after = 0;                  // steps of this session; 0: no limit
};

// Memory of a training before it starts.
struct MemoryPlan {
  uint64_t parameters = 0, gradients = 0, moments = 0, activations = 0, evaluation = 0, data = 0;
  uint64_t Total() const {
    return parameters + gradients + moments + activations + evaluation + data;
  }
  size_t shards = 1;  // above 1: batch-parallel
  bool recompute = false;
};

class Trainer {
 public:
  // Plans and allocates. OutOfMemory with the figures when the machine's memory does not suffice;
  // std::invalid_argument for a setup without what it needs, and for tokens beyond the model's
  // vocabulary.
  Trainer(TrainPlan plan, const Tokenizer& tokenizer, const TrainData& data,
          const TrainerSetup& setup);
  ~Trainer();

  // Starts from fresh weights, from those of another model, or goes on from a checkpoint: one of
  // them comes before Run. UsageError for a start in a folder that holds a run.
  void Initialize();
  void InitializeFrom(const ModelFile& file);
  // InputError where the checkpoint is not of this run (data, tokenizer or sizes changed).
  void Resume(const Checkpoint& checkpoint);

  // Trains to the end, to stop_after, or until told to stop; evaluates, saves, logs.
  // DivergedError after ten steps in a row that were not finite.
  FinishReport Run();

  const TrainPlan& plan() const;
  const Model& model() const;
  const float* weights() const;
  MemoryPlan memory() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Tokens of the text that evaluations let the model write.
inline size_t SampleTokens(const Model& model) {
  constexpr size_t kTokens = 96;
  return model.recurrent() ? kTokens : std::min(kTokens, model.context());
}

// The same plan without allocating anything.
MemoryPlan PlanMemory(const TrainPlan& plan, size_t threads, uint64_t data_bytes);
// What would make a training that this machine has not the memory for fit.
std::string HowToFit(const MemoryPlan& memory, uint64_t machine_bytes);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_TRAINER_H_
