// Layer normalization by plain loops.
#ifndef LANEWISE_KERNELS_REFERENCE_LAYER_NORM_H_
#define LANEWISE_KERNELS_REFERENCE_LAYER_NORM_H_

#include <cmath>
#include <cstddef>
#include <span>

#include "kernels/view.h"

namespace lanewise::kernels::reference {

template <typename T>
void LayerNormForward(Mat<const T> x, std::span<const T> w, std::span<const T> b, T eps, Mat<T> y,
                      std::span<T> mean, std::span<T> rstd) {
  const T size = static_cast<T>(x.cols);
  for (size_t r = 0; r < x.rows; ++r) {
    T sum = 0;
    for (size_t c = 0; c < x.cols; ++c) sum += x.Row(r)[c];
    mean[r] = sum / size;
    T squares = 0;
    for (size_t c = 0; c < x.cols; ++c) {
      squares += (x.Row(r)[c] - mean[r]) * (x.Row(r)[c] - mean[r]);
    }
    rstd[r] = T{1} / std::sqrt(squares / size + eps);
    for (size_t c = 0; c < x.cols; ++c) {
      y.Row(r)[c] = (x.Row(r)[c] - mean[r]) * rstd[r] * w[c] + b[c];
    }
  }
}

template <typename T>
void LayerNormBackward(Mat<const T> x, std::span<const T> w, std::span<const T> mean,
                       std::span<const T> rstd, Mat<const T> dy, Mat<T> dx, std::span<T> dw,
                       std::span<T> db) {
  const T size = static_cast<T>(x.cols);
  for (size_t r = 0; r < x.rows; ++r) {
    T sum_g = 0;
    T sum_gx = 0;
    for (size_t c = 0; c < x.cols; ++c) {
      const T xhat = (x.Row(r)[c] - mean[r]) * rstd[r];
      sum_g += dy.Row(r)[c] * w[c];
      sum_gx += dy.Row(r)[c] * w[c] * xhat;
    }
    for (size_t c = 0; c < x.cols; ++c) {
      const T xhat = (x.Row(r)[c] - mean[r]) * rstd[r];
      dw[c] += dy.Row(r)[c] * xhat;
      db[c] += dy.Row(r)[c];
      dx.Row(r)[c] = rstd[r] * (dy.Row(r)[c] * w[c] - sum_g / size - xhat * sum_gx / size);
    }
  }
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_LAYER_NORM_H_
