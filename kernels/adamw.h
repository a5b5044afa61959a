// AdamW with decoupled weight decay: one pass over parameters, gradients and both moments.
// Element-wise, so any partition gives the same bits. Single-threaded; does not allocate.
#ifndef LANEWISE_KERNELS_ADAMW_H_
#define LANEWISE_KERNELS_ADAMW_H_

#include <span>

#include "kernels/view.h"

namespace lanewise::kernels {

// Everything an update needs beside the arrays; doubles, because 1 - beta2 in float is off by 1e-5.
struct AdamWStep {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  double bias_correction1 = 1.0;  // 1 - beta1^step, step counted from 1
  double bias_correction2 = 1.0;  // 1 - beta2^step
  double grad_scale = 1.0;        // clipping factor / accumulated micro-batches
  bool zero_grads = true;         // leave zeros in grads, ready for the next step
};

// Largest error of a parameter relative to |p| + lr, of m relative to |m| + |g|, of v relative to v
// + g^2. What is below 2^-126 may be lost: m and v may be off by 3e-38 more, so that v of a |g|
// below 1e-17 or so can be 0.
inline constexpr double kAdamWTolerance = 1e-6;

// g = grad_scale grads; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
// p = p (1 - lr weight_decay) - lr (m / bias_correction1) / (sqrt(v / bias_correction2) + eps).
// A parameter whose new value would not be finite keeps its old one: weights never hold a NaN. The
// moments do keep what they got: after a g that is NaN or infinite the parameter never changes
// again; after a |g| above 1e19, whose square may overflow, v is infinite and only weight decay is
// left. So callers leave out steps with such gradients (the trainer: if their sum of squares is not
// finite) and clip the rest. rounded, when not empty, gets the new parameters as bf16, to nearest
// even.
void AdamWUpdate(const AdamWStep& step, std::span<float> params, std::span<float> grads,
                 std::span<float> m, std::span<float> v, std::span<BFloat16> rounded = {});

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_ADAMW_H_
