// Sums by plain loops.
#ifndef LANEWISE_KERNELS_REFERENCE_REDUCE_H_
#define LANEWISE_KERNELS_REFERENCE_REDUCE_H_

#include <cstddef>
#include <span>

#include "kernels/view.h"

namespace lanewise::kernels::reference {

template <typename T>
T Dot(std::span<const T> a, std::span<const T> b) {
  T sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// ((y + x[0]) + x[1]) + ...
template <typename T>
void AddRows(Mat<const T> x, std::span<T> y) {
  for (size_t r = 0; r < x.rows; ++r) {
    for (size_t c = 0; c < x.cols; ++c) y[c] += x.Row(r)[c];
  }
}

// The fixed tree of column c over rows [first, first + count), count >= 1.
template <typename T>
T SumTree(Mat<const T> x, size_t c, size_t first, size_t count) {
  if (count == 1) return x.Row(first)[c];
  size_t half = 1;
  while (half * 2 < count) half *= 2;
  return SumTree(x, c, first, half) + SumTree(x, c, first + half, count - half);
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_REDUCE_H_
