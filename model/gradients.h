// Loss and gradients of a text, for checks against other programs.
#ifndef LANEWISE_MODEL_GRADIENTS_H_
#define LANEWISE_MODEL_GRADIENTS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "model/model.h"
#include "runtime/parallel.h"

namespace lanewise::model {

struct GradientResult {
  double loss = 0;               // with label smoothing, mean over the targets
  double cross_entropy = 0;      // without
  std::vector<float> gradients;  // flat, as model.params()
};

// The tokens as one window: tokens[1:] given tokens[:-1], from zero state. At least two tokens.
GradientResult ComputeGradients(const Model& model, const float* weights,
                                const runtime::Scheduler& scheduler,
                                std::span<const int32_t> tokens, double label_smoothing);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_GRADIENTS_H_
