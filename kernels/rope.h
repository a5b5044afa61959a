// Rotary position embedding. Single-threaded; does not allocate.
#ifndef LANEWISE_KERNELS_ROPE_H_
#define LANEWISE_KERNELS_ROPE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/view.h"

namespace lanewise::kernels {

// Fills table [positions, hd]: the pair (2i, 2i+1) of row r is (cos, sin) of the angle
// (first + r) * theta^(-2i/hd), computed in double and rounded once. hd = table.cols is even.
void RopeTable(double theta, size_t first, Mat<float> table);

// Rotates in place each pair (x[r, 2i], x[r, 2i+1]) of every head by the angle of position
// positions[r] - first. x [R, heads * hd]: q and k side by side are one such matrix; table
// [P, hd] from RopeTable; positions [R], each within [first, first + P), which is not checked.
// Error: within kRopeTolerance of the norm of each pair.
void RopeForward(Mat<const float> table, int32_t first, std::span<const int32_t> positions,
                 Mat<float> x);

// The gradient: rotates dx [R, heads * hd] in place by the opposite angles.
void RopeBackward(Mat<const float> table, int32_t first, std::span<const int32_t> positions,
                  Mat<float> dx);

inline constexpr double kRopeTolerance = 3e-7;

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_ROPE_H_
