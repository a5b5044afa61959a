// Element-wise functions by the standard library.
#ifndef LANEWISE_KERNELS_REFERENCE_MATH_H_
#define LANEWISE_KERNELS_REFERENCE_MATH_H_

#include <cmath>

namespace lanewise::kernels::reference {

template <typename T>
T Exp(T x) {
  return std::exp(x);
}

template <typename T>
T Log(T x) {
  return std::log(x);
}

template <typename T>
T Sigmoid(T x) {
  return T{1} / (T{1} + std::exp(-x));
}

template <typename T>
T Tanh(T x) {
  return std::tanh(x);
}

template <typename T>
T Silu(T x) {
  return x / (T{1} + std::exp(-x));
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_MATH_H_
