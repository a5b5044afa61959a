// AdamW with clipping by the global norm, over the flat buffers of a ParamSet.
#ifndef LANEWISE_MODEL_OPTIMIZER_H_
#define LANEWISE_MODEL_OPTIMIZER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "model/param_set.h"
#include "runtime/arena.h"
#include "runtime/parallel.h"

namespace lanewise::model {

struct AdamWOptions {
  double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
};

// Holds the moments. Decay applies to matrices only.
class Optimizer {
 public:
  Optimizer(const ParamSet& params, const runtime::Scheduler& scheduler);

  // step counts from 1. Gradients are multiplied by grad_scale first, and zeroed after. `rounded`,
  // when not empty, gets the new weights as bf16.
  void Update(int64_t step, const AdamWOptions& options, double grad_scale,
              std::span<float> weights, std::span<float> gradients,
              std::span<kernels::BFloat16> rounded = {});

  std::span<float> first_moments() { return m_.Floats(); }
  std::span<float> second_moments() { return v_.Floats(); }

 private:
  struct Piece {
    size_t offset, count;
    bool decay;
  };
  const runtime::Scheduler& scheduler_;
  std::vector<Piece> pieces_;
  runtime::Arena m_, v_;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_OPTIMIZER_H_
