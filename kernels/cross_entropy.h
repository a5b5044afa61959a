// Softmax cross-entropy of rows of logits, with label smoothing. Single-threaded; does not
// allocate.
//
// Target distribution q = (1 - smoothing) onehot(target) + smoothing / V over all V columns.
// loss[r] = -sum_j q_j log softmax(logits)_j, nll[r] = -log softmax(logits)_target (equal if
// smoothing is 0). A negative target is ignored: loss 0, gradient 0. Targets must be below V.
// Either of loss and nll may be empty. The caller divides by the number of rows that count, through
// `scale` and in the sum.
#ifndef LANEWISE_KERNELS_CROSS_ENTROPY_H_
#define LANEWISE_KERNELS_CROSS_ENTROPY_H_

#include <cstdint>
#include <span>

#include "kernels/view.h"

namespace lanewise::kernels {

// Error of loss and nll relative to max(1, max |logits|); of a gradient relative to
// scale * max(p, q) (1 + max logit - logit). The sums of a long row round in one direction where
// its logits are equal: then by up to 2^-23 V / L more, for vectors of L floats (seen: a twentieth
// of it).
inline constexpr double kCrossEntropyTolerance = 4e-6;

void CrossEntropyForward(Mat<const float> logits, std::span<const int32_t> targets, float smoothing,
                         std::span<float> loss, std::span<float> nll);

// The same, and logits become their own gradient: scale * (softmax - q). One call, row in cache.
void CrossEntropyForwardBackward(Mat<float> logits, std::span<const int32_t> targets,
                                 float smoothing, float scale, std::span<float> loss,
                                 std::span<float> nll);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_CROSS_ENTROPY_H_
