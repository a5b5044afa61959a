// Softmax of rows, whole or in groups side by side. Single-threaded; does not allocate.
//
// A row of C columns is cut into `groups` >= 1 runs of S = C / groups columns (C must be a
// multiple, which may be 0), and each run is a softmax of its own: y = exp(x - max x) / sum exp(x -
// max x). Small S has its own fast path. A row with NaN or +infinity gives NaN; -infinity gives 0
// unless the whole run is -infinity (NaN).
#ifndef LANEWISE_KERNELS_SOFTMAX_H_
#define LANEWISE_KERNELS_SOFTMAX_H_

#include <cstddef>

#include "kernels/view.h"

namespace lanewise::kernels {

// Largest error of y relative to y (1 + max x - x), for S <= 32768; of dx relative to
// y (|dy| + sum |y dy|). The sums of a long run round in one direction where its terms are equal:
// then by up to 2^-24 S / L more, for vectors of L floats (seen: a tenth of it). Results below
// 2^-126 may be 0.
inline constexpr double kSoftmaxTolerance = 2e-6;

// y [R, C] is overwritten and may be x.
void SoftmaxForward(Mat<const float> x, Mat<float> y, size_t groups = 1);

// dx [R, C] = y * (dy - sum dy * y), overwritten; it may be dy or y.
void SoftmaxBackward(Mat<const float> y, Mat<const float> dy, Mat<float> dx, size_t groups = 1);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_SOFTMAX_H_
