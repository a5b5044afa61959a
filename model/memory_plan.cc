// Memory of a training, known before anything is allocated.
#include <algorithm>

#include "model/error.h"
#include "model/evaluate.h"
#include "model/train_step.h"
#include "model/trainer.h"
#include "runtime/arena.h"
#include "runtime/check.h"

namespace lanewise::model {

namespace {

// What the program itself needs: code, libraries, tokenizer, logs, thread stacks.
constexpr uint64_t kProgramBytes = uint64_t{10} << 20;

StepShape ShapeOf(const TrainPlan& plan, bool recompute) {
  return {.sequences = static_cast<size_t>(plan.batch),
          .steps = static_cast<size_t>(plan.ctx),
          .carry_state = plan.carry_state,
          .label_smoothing = static_cast<float>(plan.label_smoothing),
          .dropout = static_cast<float>(plan.dropout),
          .recompute_layers = recompute,
          .half_weights = plan.dtype == "bf16"};
}

// What evaluations need: their activations, and the state of the text that the model then writes.
uint64_t EvaluationBytes(const Model& model, const StepShape& shape, size_t threads) {
  uint64_t bytes = PlanEvaluationMemory(model, shape.steps, threads, shape.half_weights);
  const GraphOptions sample{.half_weights = shape.half_weights,
                            .cache_capacity = SampleTokens(model)};
  for (const StateSpec& spec : model.state(sample)) bytes += spec.Bytes() * (spec.in_place ? 1 : 2);
  return bytes;
}

// The tokens of a step and what follows each.
uint64_t BatchBytes(const TrainPlan& plan) {
  return static_cast<uint64_t>(plan.TokensPerStep()) * 2 * sizeof(int32_t);
}

MemoryPlan PlanWith(const TrainPlan& plan, const Model& model, size_t threads, uint64_t data_bytes,
                    bool recompute) {
  const StepShape shape = ShapeOf(plan, recompute);
  const StepMemory step = PlanStepMemory(model, shape, threads);
  const uint64_t buffer = model.params().buffer_size() * sizeof(float);
  return {.parameters = shape.half_weights ? buffer + buffer / 2 : buffer,
          .gradients = buffer + step.gradients,
          .moments = 2 * buffer,
          .activations = step.activations,
          .evaluation =
              kProgramBytes + (plan.val_fraction > 0 ? EvaluationBytes(model, shape, threads) : 0),
          .data = data_bytes + BatchBytes(plan),
          .shards = ShardCount(model, shape),
          .recompute = recompute};
}

}  // namespace

std::string HowToFit(const MemoryPlan& memory, uint64_t machine_bytes) {
  if (memory.parameters + memory.gradients + memory.moments > machine_bytes) {
    return "only a smaller model fits: --layers, --dim or --vocab";
  }
  return std::string("a smaller --batch or --ctx, ") +
         (memory.recompute ? "" : "--recompute layer, ") + "or a smaller model needs less";
}

MemoryPlan PlanMemory(const TrainPlan& plan, size_t threads, uint64_t data_bytes) {
  const std::unique_ptr<Model> model = MakeModel(plan.model, "the configuration");
  if (plan.recompute == "layer") return PlanWith(plan, *model, threads, data_bytes, true);
  MemoryPlan memory = PlanWith(plan, *model, threads, data_bytes, false);
  const uint64_t total = runtime::TotalMemoryBytes();
  // Leaves a tenth of the machine to everything else.
  if (plan.recompute == "auto" && total > 0 && memory.Total() > total / 10 * 9) {
    memory = PlanWith(plan, *model, threads, data_bytes, true);
  }
  return memory;
}

}  // namespace lanewise::model
