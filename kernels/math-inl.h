// Vector exp, log, sigmoid, tanh and silu for float lanes, for use inside other kernels.
//
// Per-target include guard as in Highway: include between HWY_BEFORE_NAMESPACE files only through
// foreach_target.h. Error bounds hold for every float input and are proved in math_test.cc. A
// result whose magnitude is below 2^-126 may be flushed to zero; infinity and NaN propagate as in
// the limit.
#if defined(LANEWISE_KERNELS_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_MATH_INL_H_
#undef LANEWISE_KERNELS_MATH_INL_H_
#else
#define LANEWISE_KERNELS_MATH_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace math {

namespace hn = hwy::HWY_NAMESPACE;

// Below kExpLow, e^x < 2^-126 and is flushed; above kExpHigh, e^x overflows.
inline constexpr float kExpLow = -87.3365402f;
inline constexpr float kExpHigh = 88.7228317f;
inline constexpr float kLog2E = 1.44269504088896341f;
// ln 2 in two parts: the high one has 9 significant bits, so that n * kLn2High is exact for |n| <
// 2^15.
inline constexpr float kLn2High = 0.693359375f;
inline constexpr float kLn2Low = -2.12194440054690583e-4f;
// Adding 1.5 * 2^23 rounds to an integer and leaves that integer in the low mantissa bits.
inline constexpr float kRoundMagic = 12582912.0f;

// (e^r - 1)/r for |r| <= ln(2)/2: 1 and then a minimax fit (3e-9 relative to e^r).
template <class D, class V = hn::Vec<D>>
HWY_INLINE V ExpSlope(D d, V r) {
  V p = hn::MulAdd(hn::Set(d, 0.00138145868f), r, hn::Set(d, 0.00836871658f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.0416683874f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.166665211f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.499999935f));
  return hn::MulAdd(p, r, hn::Set(d, 1.0f));
}

// e^r for |r| <= ln(2)/2.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V ExpReduced(D d, V r) {
  return hn::MulAdd(ExpSlope(d, r), r, hn::Set(d, 1.0f));
}

// x - n ln 2, where n is already rounded.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V ReduceByLn2(D d, V x, V n) {
  const V r = hn::NegMulAdd(n, hn::Set(d, kLn2High), x);
  return hn::NegMulAdd(n, hn::Set(d, kLn2Low), r);
}

#undef LANEWISE_MATH_HAVE_SCALEF
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
#define LANEWISE_MATH_HAVE_SCALEF 1

// 2^(i/16).
alignas(64) inline constexpr float kExp2Sixteenths[16] = {
    1.00000000f, 1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f, 1.24185781f,
    1.29683955f, 1.35425555f, 1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f,
    1.68179283f, 1.75625216f, 1.83400809f, 1.91520656f};

using V512 = hn::Vec512<float>;

// p 2^floor(n), or 0 where x < kExpLow. An infinite n gives 0 or infinity whatever p is, and
// nothing has to be done for results beyond the largest float or for NaN.
HWY_INLINE V512 ScaleUnlessTiny(V512 p, V512 n, V512 x) {
  const __mmask16 keep = _mm512_cmp_ps_mask(x.raw, _mm512_set1_ps(kExpLow), _CMP_NLT_UQ);
  return V512{_mm512_maskz_scalef_ps(keep, p.raw, n.raw)};
}

// e^x by a table of sixteenths of a power of two, where only a cubic is left: for x <= 88, or with
// kBounded for all x (the cubic of a huge x may be negative).
template <bool kBounded>
HWY_INLINE V512 ExpByTable(V512 x) {
  const hn::Full512<float> d;
  // Of NaN and a number, this instruction returns its second operand.
  if constexpr (kBounded) x = V512{_mm512_min_ps(_mm512_set1_ps(89.0f), x.raw)};
  const V512 magic = hn::Set(d, 786432.0f);  // 1.5 2^19: rounds to sixteenths
  const V512 t = hn::MulAdd(x, hn::Set(d, kLog2E), magic);
  const V512 n = hn::Sub(t, magic);
  const V512 r = ReduceByLn2(d, x, n);
  const V512 power{
      _mm512_permutexvar_ps(_mm512_castps_si512(t.raw), _mm512_load_ps(kExp2Sixteenths))};
  V512 q = hn::MulAdd(r, hn::Set(d, 0.166666672f), hn::Set(d, 0.5f));
  q = hn::MulAdd(q, r, hn::Set(d, 1.0f));
  return ScaleUnlessTiny(hn::MulAdd(hn::Mul(power, r), q, power), n, x);
}

// e^-x as accurate as can be, for 1 + e^-x.
HWY_INLINE V512 ExpOfMinus(V512 x) {
  const hn::Full512<float> d;
  x = hn::Neg(x);
  const V512 magic = hn::Set(d, kRoundMagic);
  const V512 n = hn::Sub(hn::MulAdd(x, hn::Set(d, kLog2E), magic), magic);
  return ScaleUnlessTiny(ExpReduced(d, ReduceByLn2(d, x, n)), n, x);
}

// Shorter vectors go through a full one, so that every width gives the same bits.
template <bool kBounded, class D, class V = hn::Vec<D>>
HWY_INLINE V ExpAnyWidth(D d, V x) {
  const hn::Full512<float> full;
  return hn::ResizeBitCast(d, ExpByTable<kBounded>(hn::ResizeBitCast(full, x)));
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V OnePlusExpOfMinus(D d, V x) {
  const hn::Full512<float> full;
  const V e = hn::ResizeBitCast(d, ExpOfMinus(hn::ResizeBitCast(full, x)));
  return hn::Add(e, hn::Set(d, 1.0f));
}

#else
#define LANEWISE_MATH_HAVE_SCALEF 0

// Where 1 + e^-x is a normal float; above kSigmoidOne, sigmoid(x) rounds to 1.
inline constexpr float kOnePlusLow = -88.0f;
inline constexpr float kSigmoidOne = 17.5f;

// 1 + e^-x with one rounding, for kOnePlusLow <= x <= 87: 1 + 2^n + (2^n r) slope(r).
template <class D, class V = hn::Vec<D>>
HWY_INLINE V OnePlusExpOfMinus(D d, V x) {
  const hn::RebindToUnsigned<D> du;
  const V magic = hn::Set(d, kRoundMagic + 127.0f);  // with the exponent's bias
  const V t = hn::NegMulAdd(x, hn::Set(d, kLog2E), magic);
  const V scale = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, t)));
  const V r = ReduceByLn2(d, hn::Neg(x), hn::Sub(t, magic));
  return hn::MulAdd(hn::Mul(scale, r), ExpSlope(d, r), hn::Add(scale, hn::Set(d, 1.0f)));
}
#endif

}  // namespace math

// e^x, at most 1.25 ULP. Results below 2^-126 are 0; Exp(-inf) = 0, Exp(inf) = inf, Exp(NaN) = NaN.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V Exp(D d, V x) {
#if LANEWISE_MATH_HAVE_SCALEF
  return math::ExpAnyWidth<true>(d, x);
#else
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToUnsigned<D> du;
  const V magic = hn::Set(d, math::kRoundMagic);
  const V t = hn::MulAdd(x, hn::Set(d, math::kLog2E), magic);
  const V p = math::ExpReduced(d, math::ReduceByLn2(d, x, hn::Sub(t, magic)));
  // Adding n to the exponent field also covers n = 128, whose power of two is not a float.
  V y = hn::BitCast(d, hn::Add(hn::BitCast(du, p), hn::ShiftLeft<23>(hn::BitCast(du, t))));
  y = hn::IfThenElseZero(hn::Ge(x, hn::Set(d, math::kExpLow)), y);
  // Everything that is not <= kExpHigh is too large or NaN: the product is inf or NaN.
  return hn::IfThenElse(hn::Le(x, hn::Set(d, math::kExpHigh)), y,
                        hn::Mul(x, hn::Set(d, 3.40282347e38f)));
#endif
}

// e^x for x <= 88 (x - max in a softmax, clamped keys), as accurate as Exp and cheaper than Exp.
// Results below 2^-126 are 0; -inf gives 0, NaN gives NaN; x > 88 is meaningless.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V ExpNoOverflow(D d, V x) {
#if LANEWISE_MATH_HAVE_SCALEF
  return math::ExpAnyWidth<false>(d, x);
#else
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToUnsigned<D> du;
  const V magic = hn::Set(d, math::kRoundMagic + 127.0f);  // with the exponent's bias
  const V t = hn::MulAdd(x, hn::Set(d, math::kLog2E), magic);
  const V p = math::ExpReduced(d, math::ReduceByLn2(d, x, hn::Sub(t, magic)));
  const V y = hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, t))));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, math::kExpLow)), y);
#endif
}

// Natural logarithm, at most 1 ULP, denormal inputs included (unless the CPU reads them as zero).
// Log(0) = -inf, Log(inf) = inf, Log(x < 0) = NaN, Log(NaN) = NaN.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V Log(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToSigned<D> di;
  const auto tiny = hn::Lt(x, hn::Set(d, 1.17549435e-38f));
  const V scaled = hn::IfThenElse(tiny, hn::Mul(x, hn::Set(d, 8388608.0f)), x);
  const auto bits = hn::BitCast(di, scaled);
  // Mantissa in [2/3, 4/3): subtract the bits of 2/3, whose exponent field then holds the power.
  const auto power = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, int32_t{0x3F2AAAAB})));
  const V m = hn::BitCast(d, hn::Sub(bits, hn::ShiftLeft<23>(power)));
  V n = hn::ConvertTo(d, power);
  n = hn::Sub(n, hn::IfThenElseZero(tiny, hn::Set(d, 23.0f)));
  const V f = hn::Sub(m, hn::Set(d, 1.0f));
  const V f2 = hn::Mul(f, f);
  V p = hn::MulAdd(hn::Set(d, 0.1200715f), f, hn::Set(d, -0.12845067f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.10754236f));
  p = hn::MulAdd(p, f, hn::Set(d, -0.12195776f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.14304457f));
  p = hn::MulAdd(p, f, hn::Set(d, -0.16679578f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.19999598f));
  p = hn::MulAdd(p, f, hn::Set(d, -0.24999820f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.33333336f));
  // n ln2 + f - f^2/2 + f^3 p, smallest terms first.
  V y = hn::MulAdd(n, hn::Set(d, math::kLn2Low), hn::Mul(hn::Mul(f, f2), p));
  y = hn::NegMulAdd(hn::Set(d, 0.5f), f2, y);
  y = hn::MulAdd(n, hn::Set(d, math::kLn2High), hn::Add(f, y));
  // 0, infinity, NaN and negative inputs.
  const V inf = hn::Inf(d);
  y = hn::IfThenElse(hn::Eq(x, hn::Zero(d)), hn::Neg(inf), y);
  const V special = hn::IfThenElse(hn::Eq(x, inf), inf, hn::NaN(d));
  return hn::IfThenElse(hn::And(hn::Ge(x, hn::Zero(d)), hn::Lt(x, inf)), y, special);
}

// 1/(1 + e^-x), at most 2.5 ULP also where x is very negative; use Sigmoid(-x) for 1 - Sigmoid(x).
// Results below 2^-126 may be 0.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V Sigmoid(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V one = hn::Set(d, 1.0f);
  const V y = hn::Div(one, math::OnePlusExpOfMinus(d, x));
#if LANEWISE_MATH_HAVE_SCALEF
  return y;
#else
  const V big = hn::IfThenElse(hn::Gt(x, hn::Set(d, math::kSigmoidOne)), one, y);
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, math::kExpLow)), big);
#endif
}

// x/(1 + e^-x), at most 2.5 ULP for x >= -88; below that, where its magnitude is < 6e-37, it is 0.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V Silu(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V y = hn::Div(x, math::OnePlusExpOfMinus(d, x));
#if LANEWISE_MATH_HAVE_SCALEF
  return y;
#else
  const V big = hn::IfThenElse(hn::Gt(x, hn::Set(d, math::kSigmoidOne)), x, y);
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, math::kOnePlusLow)), big);
#endif
}

// Hyperbolic tangent, at most 2.5 ULP, odd, no cancellation near 0: with q = e^(2|x|) - 1,
// q/(q + 2).
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V Tanh(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToUnsigned<D> du;
  const V a = hn::Abs(x);
  const V clamped = hn::Min(hn::Add(a, a), hn::Set(d, 20.0f));  // tanh(10) rounds to 1
  const V magic = hn::Set(d, math::kRoundMagic + 127.0f);
  const V t = hn::MulAdd(clamped, hn::Set(d, math::kLog2E), magic);
  const V r = math::ReduceByLn2(d, clamped, hn::Sub(t, magic));
  const V scale = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, t)));
  // e^r - 1 by a minimax fit (1.4e-8 relative).
  V p = hn::MulAdd(hn::Set(d, 0.00138825f), r, hn::Set(d, 0.00836652f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.04166720f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.16666544f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.49999998f));
  p = hn::MulAdd(hn::Mul(r, r), p, r);
  const V q = hn::MulAdd(scale, p, hn::Sub(scale, hn::Set(d, 1.0f)));
  // The errors of both terms are q's and cancel in part: not so if each were computed from p.
  const V y = hn::CopySign(hn::Div(q, hn::Add(q, hn::Set(d, 2.0f))), x);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
