// Sums, scaling and filling of arrays, every sum in an order that depends on sizes alone.
// Single-threaded; does not allocate. Spans of one call have one size.
#ifndef LANEWISE_KERNELS_REDUCE_H_
#define LANEWISE_KERNELS_REDUCE_H_

#include <span>

#include "kernels/view.h"

namespace lanewise::kernels {

void Fill(float value, std::span<float> y);

// y = s x; x may be y.
void Scale(float s, std::span<const float> x, std::span<float> y);

// y += x.
void AddTo(std::span<const float> x, std::span<float> y);

// y += s x, one rounding where the CPU has fused multiply-add.
void AddScaledTo(float s, std::span<const float> x, std::span<float> y);

// y = a + b; either may be y.
void Add(std::span<const float> a, std::span<const float> b, std::span<float> y);

// y = a b, element by element; either may be y.
void Multiply(std::span<const float> a, std::span<const float> b, std::span<float> y);

// y[c] += sum_r x[r,c], row by row: ((y + x[0]) + x[1]) + ... y must not lie in x. For partial
// gradients and biases.
void AddRows(Mat<const float> x, std::span<float> y);

// y[c] = sum_r x[r,c] in a fixed tree: the first half of the rows, rounded up to a power of two,
// plus the rest, and so on within each. y may be row 0 of x. For the gradients of shards.
void SumRowsTree(Mat<const float> x, std::span<float> y);

// Accumulated in double: error below n 2^-53 times the sum of magnitudes of the n terms, and below
// 1e-13 if n <= 1e4 or they are random. NaN or infinity in x makes the result not finite, which is
// how bad gradients are found.
double Sum(std::span<const float> x);
double SumSquares(std::span<const float> x);
double Dot(std::span<const float> a, std::span<const float> b);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_REDUCE_H_
