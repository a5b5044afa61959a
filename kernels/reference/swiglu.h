// SwiGLU by plain loops.
#ifndef LANEWISE_KERNELS_REFERENCE_SWIGLU_H_
#define LANEWISE_KERNELS_REFERENCE_SWIGLU_H_

#include <cmath>
#include <cstddef>

#include "kernels/view.h"

namespace lanewise::kernels::reference {

template <typename T>
void SwigluForward(Mat<const T> gate_up, Mat<T> h) {
  for (size_t r = 0; r < h.rows; ++r) {
    for (size_t c = 0; c < h.cols; ++c) {
      const T g = gate_up.Row(r)[c];
      h.Row(r)[c] = g / (T{1} + std::exp(-g)) * gate_up.Row(r)[h.cols + c];
    }
  }
}

template <typename T>
void SwigluBackward(Mat<const T> gate_up, Mat<const T> dh, Mat<T> d_gate_up) {
  for (size_t r = 0; r < dh.rows; ++r) {
    for (size_t c = 0; c < dh.cols; ++c) {
      const T g = gate_up.Row(r)[c];
      const T u = gate_up.Row(r)[dh.cols + c];
      const T s = T{1} / (T{1} + std::exp(-g));
      const T d = dh.Row(r)[c];
      d_gate_up.Row(r)[c] = d * u * s * (T{1} + g / (T{1} + std::exp(g)));
      d_gate_up.Row(r)[dh.cols + c] = d * g * s;
    }
  }
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_SWIGLU_H_
