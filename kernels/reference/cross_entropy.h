// Cross-entropy by plain loops.
#ifndef LANEWISE_KERNELS_REFERENCE_CROSS_ENTROPY_H_
#define LANEWISE_KERNELS_REFERENCE_CROSS_ENTROPY_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/view.h"

namespace lanewise::kernels::reference {

template <typename T>
void CrossEntropyForward(Mat<const T> logits, std::span<const int32_t> targets, T smoothing,
                         std::span<T> loss, std::span<T> nll) {
  for (size_t r = 0; r < logits.rows; ++r) {
    loss[r] = nll[r] = 0;
    if (targets[r] < 0) continue;
    const std::span<const T> row = logits.RowSpan(r);
    const T largest = *std::max_element(row.begin(), row.end());
    T sum = 0;
    for (const T z : row) sum += std::exp(z - largest);
    const T log_sum = largest + std::log(sum);
    nll[r] = log_sum - row[static_cast<size_t>(targets[r])];
    loss[r] = (T{1} - smoothing) * nll[r];
    for (const T z : row) loss[r] += smoothing / static_cast<T>(row.size()) * (log_sum - z);
  }
}

// gradient = scale * (softmax - target distribution).
template <typename T>
void CrossEntropyBackward(Mat<const T> logits, std::span<const int32_t> targets, T smoothing,
                          T scale, Mat<T> gradient) {
  for (size_t r = 0; r < logits.rows; ++r) {
    const std::span<const T> row = logits.RowSpan(r);
    const std::span<T> out = gradient.RowSpan(r);
    std::fill(out.begin(), out.end(), T{0});
    if (targets[r] < 0) continue;
    const T largest = *std::max_element(row.begin(), row.end());
    T sum = 0;
    for (const T z : row) sum += std::exp(z - largest);
    for (size_t c = 0; c < row.size(); ++c) {
      const T onehot = c == static_cast<size_t>(targets[r]) ? T{1} : T{0};
      const T q = (T{1} - smoothing) * onehot + smoothing / static_cast<T>(row.size());
      out[c] = scale * (std::exp(row[c] - largest) / sum - q);
    }
  }
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_CROSS_ENTROPY_H_
