// Element-wise functions over arrays. The per-lane versions for other kernels are in math-inl.h.
//
// All: y[i] = f(x[i]); x and y have one size and may be the same memory. Errors are bounded over
// every float input; results of magnitude below 2^-126 may be flushed to zero; NaN propagates.
#ifndef LANEWISE_KERNELS_MATH_H_
#define LANEWISE_KERNELS_MATH_H_

#include <span>

namespace lanewise::kernels {

// Largest error in units in the last place, proved by math_test.cc against double.
inline constexpr double kExpMaxUlp = 2.0;
inline constexpr double kLogMaxUlp = 2.0;
inline constexpr double kSigmoidMaxUlp = 4.0;
inline constexpr double kTanhMaxUlp = 2.5;
inline constexpr double kSiluMaxUlp = 5.0;  // for x >= -87.3

void Exp(std::span<const float> x, std::span<float> y);
void Log(std::span<const float> x, std::span<float> y);
void Sigmoid(std::span<const float> x, std::span<float> y);
void Tanh(std::span<const float> x, std::span<float> y);
void Silu(std::span<const float> x, std::span<float> y);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_MATH_H_
