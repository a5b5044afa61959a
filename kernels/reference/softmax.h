// Grouped softmax by plain loops.
#ifndef LANEWISE_KERNELS_REFERENCE_SOFTMAX_H_
#define LANEWISE_KERNELS_REFERENCE_SOFTMAX_H_

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "kernels/view.h"

namespace lanewise::kernels::reference {

template <typename T>
void SoftmaxForward(Mat<const T> x, Mat<T> y, size_t groups = 1) {
  const size_t size = x.cols / groups;
  for (size_t r = 0; r < x.rows; ++r) {
    for (size_t g = 0; g < groups; ++g) {
      const T* in = x.Row(r) + g * size;
      T* out = y.Row(r) + g * size;
      const T largest = *std::max_element(in, in + size);
      T sum = 0;
      for (size_t c = 0; c < size; ++c) sum += out[c] = std::exp(in[c] - largest);
      for (size_t c = 0; c < size; ++c) out[c] /= sum;
    }
  }
}

template <typename T>
void SoftmaxBackward(Mat<const T> y, Mat<const T> dy, Mat<T> dx, size_t groups = 1) {
  const size_t size = y.cols / groups;
  for (size_t r = 0; r < y.rows; ++r) {
    for (size_t g = 0; g < groups; ++g) {
      const size_t first = g * size;
      T dot = 0;
      for (size_t c = first; c < first + size; ++c) dot += y.Row(r)[c] * dy.Row(r)[c];
      for (size_t c = first; c < first + size; ++c) {
        dx.Row(r)[c] = y.Row(r)[c] * (dy.Row(r)[c] - dot);
      }
    }
  }
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_SOFTMAX_H_
