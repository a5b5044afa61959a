// Cross-entropy of a text under a model.
#ifndef LANEWISE_MODEL_EVALUATE_H_
#define LANEWISE_MODEL_EVALUATE_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "model/data.h"
#include "model/model.h"
#include "runtime/parallel.h"

namespace lanewise::model {

struct EvaluateOptions {
  bool per_token = false;
  // Called now and then with the share that is done; returning false stops (the result covers what
  // was done).
  std::function<bool(double done)> progress = {};
};

struct EvaluateResult {
  uint64_t tokens = 0;                     // read
  uint64_t targets = 0;                    // counted: the tokens after the first
  double cross_entropy = 0;                // mean nats
  double bits_per_byte = 0;                // 0 where the bytes are unknown
  std::vector<float> token_cross_entropy;  // with per_token
};

// An evaluator keeps its plan and memory between calls: training evaluates often.
//
// Recurrent models carry their state through the whole text; ctx and stride do not matter. Others
// read windows of `ctx` tokens (0: the model's context); each begins `stride` tokens (0: ctx) after
// the one before, and counts only the targets that none before it counted.
class Evaluator {
 public:
  // half_weights: products read Weights::half. most_tokens: of the texts to come; windows are no
  // longer, and no more in a pass, than these fill.
  Evaluator(const Model& model, const runtime::Scheduler& scheduler, size_t ctx = 0,
            size_t stride = 0, bool half_weights = false,
            uint64_t most_tokens = std::numeric_limits<uint64_t>::max());
  ~Evaluator();
  // InputError below two tokens.
  EvaluateResult Run(const runtime::Weights& weights, const TokenArray& tokens,
                     const EvaluateOptions& options);
  size_t MemoryBytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Activations of an Evaluator, before there is one.
size_t PlanEvaluationMemory(const Model& model, size_t ctx, size_t workers, bool half_weights);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_EVALUATE_H_
