// Loss and gradients of a batch, in one of the two parallel forms.
#ifndef LANEWISE_MODEL_TRAIN_STEP_H_
#define LANEWISE_MODEL_TRAIN_STEP_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/model.h"
#include "runtime/arena.h"
#include "runtime/executor.h"
#include "runtime/parallel.h"
#include "runtime/profiler.h"

namespace lanewise::model {

struct StepShape {
  size_t sequences = 1;
  size_t steps = 1;
  bool carry_state = false;
  float label_smoothing = 0;
  float dropout = 0;
  bool recompute_layers = false;
  bool half_weights = false;  // see GraphOptions
};

// Into how many shards a batch is cut: a function of sizes alone, so that the bits are the same for
// any thread count. 1 means operation-parallel: each operation spreads over the threads. More:
// batch-parallel: each shard runs its whole graph on one thread, and the shards' gradients are
// added in a fixed tree.
size_t ShardCount(const Model& model, const StepShape& shape);

// Bytes of activations that all shards need together, and of shard gradients beyond the first.
struct StepMemory {
  size_t activations = 0;
  size_t gradients = 0;
};
StepMemory PlanStepMemory(const Model& model, const StepShape& shape, size_t threads);

// Runs micro-batches and collects their gradients. Does not allocate after construction.
class TrainStep {
 public:
  TrainStep(const Model& model, const runtime::Scheduler& scheduler, const StepShape& shape,
            runtime::Profiler* profiler = nullptr);

  struct Loss {
    double loss = 0;  // sums over the counted targets
    double nll = 0;
  };
  // One micro-batch [sequences * steps]: adds the gradient of scale * sum of losses. `row` numbers
  // the micro-batch's first row within the step (dropout), `step` counts from 1.
  Loss Accumulate(const runtime::Weights& weights, std::span<const int32_t> inputs,
                  std::span<const int32_t> targets, float scale, uint64_t seed, uint32_t step,
                  uint32_t row);
  // Adds up the shards' gradients and leaves zeros in all shards but the first. Returns the sum of
  // their squares; not finite when any is not.
  double Finish();
  // The gradients after Finish, flat.
  std::span<float> gradients() { return {gradients_.Floats().data(), buffer_size_}; }
  // Clears what Accumulate has added, for a step that Optimizer::Update does not follow: that one
  // leaves zeros in gradients().
  void Zero();

  // The carried state, zero at the start: tensors of all sequences, as Model::state() lists them.
  // Empty without.
  struct StateTensor {
    std::string name;
    size_t rows, cols;
    std::span<float> values;
  };
  std::vector<StateTensor> StateTensors() const;
  void ResetState();

  size_t shards() const { return shards_; }

 private:
  void Bind(runtime::Executor& executor, size_t shard, const runtime::Weights& weights,
            std::span<const int32_t> inputs, std::span<const int32_t> targets);

  const runtime::Scheduler& scheduler_;
  StepShape shape_;
  runtime::Profiler* profiler_;
  size_t buffer_size_;
  size_t shards_ = 1;
  ModelGraph ports_;  // its graph has moved to the executors
  std::vector<std::unique_ptr<runtime::Executor>> executors_;  // of shards that run at once
  runtime::Arena gradients_;                                   // [shards, buffer_size]
  std::vector<StateSpec> specs_;
  std::vector<size_t> state_offset_;
  runtime::Arena states_[2];
  size_t current_ = 0;
  std::vector<float> nll_, loss_;
  std::vector<double> squares_;
  std::vector<int32_t> keys_;
  float scale_ = 1;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_TRAIN_STEP_H_
