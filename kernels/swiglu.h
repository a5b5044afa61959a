// SwiGLU: the gated half of a feed-forward block. Single-threaded; does not allocate.
//
// gate_up [R, 2F] holds the gate g in its first F columns and up u in the last F: h = silu(g) * u,
// silu(g) = g * sigmoid(g). The sigmoid is recomputed in the backward pass, so that only gate_up is
// kept.
#ifndef LANEWISE_KERNELS_SWIGLU_H_
#define LANEWISE_KERNELS_SWIGLU_H_

#include "kernels/view.h"

namespace lanewise::kernels {

// Largest error of dg relative to |dh u| (1 + |g|), and, for g >= -87.3 and results of at least
// 2^-126, of h relative to |h| and of du relative to |du|. For smaller g, h is within 2e-36 |u| and
// du within 2e-36 |dh| (silu(-87.3) is -1e-36); -infinity gives NaN.
inline constexpr double kSwigluTolerance = 4e-7;

// h [R, F] is overwritten; it may be the gate half or the up half of gate_up.
void SwigluForward(Mat<const float> gate_up, Mat<float> h);

// d_gate_up [R, 2F] is overwritten: dg = dh u s (1 + g (1 - s)) with s = sigmoid(g), du = dh
// silu(g). It may be gate_up's memory. If h is not empty, h [R, F] is computed again in the same
// pass; it may be dh's memory.
void SwigluBackward(Mat<const float> gate_up, Mat<const float> dh, Mat<float> d_gate_up,
                    Mat<float> h = {});

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_SWIGLU_H_
