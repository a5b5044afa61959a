// Multi-scale token shift with mixing, and the one-row shift of the channel mix. Both work on one
// sequence; all parameters are raw, the sigmoids of model/slot_rnn/README.md are applied inside.
//
// A channel range is a call with column slices of every argument. A time range [t0, t1) writes only
// these rows and reads whatever rows it needs; results do not depend on how rows or columns are
// cut, except for the partial sums of the backward passes. Single-threaded; nothing is allocated.
#ifndef LANEWISE_KERNELS_TOKEN_SHIFT_H_
#define LANEWISE_KERNELS_TOKEN_SHIFT_H_

#include <cstddef>
#include <span>

#include "kernels/view.h"

namespace lanewise::kernels {

inline constexpr size_t kTokenShiftCarriedRows = 4;
inline constexpr size_t kTokenShiftSums = 6;
inline constexpr size_t kChannelShiftSums = 1;

// [E] each: time_shift_w1, w2, w4 and time_mix_r, k, v, or their gradients.
template <typename T>
struct TokenShiftParams {
  std::span<T> w1, w2, w4, mix_r, mix_k, mix_v;

  TokenShiftParams Cols(size_t begin, size_t count) const {
    return {w1.subspan(begin, count),    w2.subspan(begin, count),    w4.subspan(begin, count),
            mix_r.subspan(begin, count), mix_k.subspan(begin, count), mix_v.subspan(begin, count)};
  }
};

// sh[t] = (s1 n[t-1] + s2 n[t-2] + s4 n[t-4]) / (s1 + s2 + s4 + 1e-6), s = sigmoid(w);
// xz[t] = m_z n[t] + (1 - m_z) sh[t], m_z = sigmoid(mix_z), for z in r, k, v and t in [t0, t1).
// n [T,E]; carried [4,E] are rows -4..-1 of n (data null: zeros); xr, xk, xv [T,E], not n.
// Error of each value: at most kTokenShiftTolerance times the largest |n| that enters it.
inline constexpr double kTokenShiftTolerance = 1e-6;
void TokenShiftForward(Mat<const float> n, Mat<const float> carried,
                       const TokenShiftParams<const float>& params, size_t t0, size_t t1,
                       Mat<float> xr, Mat<float> xk, Mat<float> xv);

// dn[t] for t in [t0, t1) is overwritten with residual[t] (data null: zeros; may be dn itself) plus
// the gradient of the three outputs, whose dxr, dxk, dxv [T,E] must be complete up to row t1 + 3.
// dn must be none of these: calls for earlier rows still read them. No gradient flows into carried.
// sums [6,E] is overwritten with the partial parameter sums of these rows, for
// TokenShiftParamGradients. Error of dn: at most kTokenShiftTolerance times the sum of
// |residual[t]| and of the largest |dxr|, |dxk| and |dxv| that enter it.
void TokenShiftBackward(Mat<const float> n, Mat<const float> carried,
                        const TokenShiftParams<const float>& params, Mat<const float> dxr,
                        Mat<const float> dxk, Mat<const float> dxv, size_t t0, size_t t1,
                        Mat<const float> residual, Mat<float> dn, Mat<float> sums);

// Adds the gradients of the raw parameters to grads from P blocks of partial sums: sums [6*P,E],
// the blocks added in order. Error relative to the norm of each gradient: below 5e-6 for random
// terms; float32 sums over rows, which round in one direction where the terms are equal.
void TokenShiftParamGradients(const TokenShiftParams<const float>& params, Mat<const float> sums,
                              const TokenShiftParams<float>& grads);

// x[t] = m n[t] + (1 - m) n[t-1], m = sigmoid(mix); carried [1,E] is n[-1] (data null: zeros).
// Ranges, aliasing and error as in TokenShiftForward.
void ChannelShiftForward(Mat<const float> n, Mat<const float> carried, std::span<const float> mix,
                         size_t t0, size_t t1, Mat<float> x);

// As TokenShiftBackward; dx must be complete up to row t1, sums is [1,E].
void ChannelShiftBackward(Mat<const float> n, Mat<const float> carried, std::span<const float> mix,
                          Mat<const float> dx, size_t t0, size_t t1, Mat<const float> residual,
                          Mat<float> dn, Mat<float> sums);

// As TokenShiftParamGradients, sums [P,E].
void ChannelShiftParamGradients(std::span<const float> mix, Mat<const float> sums,
                                std::span<float> grad);

// carried_out [C,E] = the last C rows of carried_in [C,E] (data null: zeros) followed by the first
// `length` rows of n: a window shorter than C shifts the old rows. carried_out may be carried_in.
void ShiftCarry(Mat<const float> n, size_t length, Mat<const float> carried_in,
                Mat<float> carried_out);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_TOKEN_SHIFT_H_
