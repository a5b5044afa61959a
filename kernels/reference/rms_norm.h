// Root-mean-square normalization by plain loops.
#ifndef LANEWISE_KERNELS_REFERENCE_RMS_NORM_H_
#define LANEWISE_KERNELS_REFERENCE_RMS_NORM_H_

#include <cmath>
#include <cstddef>
#include <span>

#include "kernels/view.h"

namespace lanewise::kernels::reference {

template <typename T>
void RmsNormForward(Mat<const T> x, std::span<const T> w, T eps, Mat<T> y, std::span<T> rstd) {
  for (size_t r = 0; r < x.rows; ++r) {
    T squares = 0;
    for (size_t c = 0; c < x.cols; ++c) squares += x.Row(r)[c] * x.Row(r)[c];
    rstd[r] = T{1} / std::sqrt(squares / static_cast<T>(x.cols) + eps);
    for (size_t c = 0; c < x.cols; ++c) y.Row(r)[c] = x.Row(r)[c] * rstd[r] * w[c];
  }
}

template <typename T>
void RmsNormBackward(Mat<const T> x, std::span<const T> w, std::span<const T> rstd, Mat<const T> dy,
                     Mat<T> dx, std::span<T> dw) {
  for (size_t r = 0; r < x.rows; ++r) {
    T sum = 0;
    for (size_t c = 0; c < x.cols; ++c) sum += dy.Row(r)[c] * w[c] * x.Row(r)[c] * rstd[r];
    for (size_t c = 0; c < x.cols; ++c) {
      const T xhat = x.Row(r)[c] * rstd[r];
      dw[c] += dy.Row(r)[c] * xhat;
      dx.Row(r)[c] = rstd[r] * (dy.Row(r)[c] * w[c] - xhat * sum / static_cast<T>(x.cols));
    }
  }
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_RMS_NORM_H_
