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

// AVX-512 looks up 32 floats in two registers, scales by a power of two without clamping, and takes
// a float apart, each in one instruction. Elsewhere the polynomials are longer instead.
#undef LANEWISE_MATH_HAVE_SCALEF
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
#define LANEWISE_MATH_HAVE_SCALEF 1

// 2^(i/32), and the same times 0.2402264 (see SigmoidByTable).
alignas(64) inline constexpr float kExp2[32] = {
    1.0f,        1.0218972f,  1.04427373f, 1.06714046f, 1.09050775f, 1.1143868f,  1.13878858f,
    1.1637249f,  1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f, 1.29683959f, 1.32523668f,
    1.35425556f, 1.38390994f, 1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f, 1.54221082f,
    1.5759809f,  1.61049032f, 1.64575553f, 1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f,
    1.8340081f,  1.87416768f, 1.91520655f, 1.95714414f};
alignas(64) inline constexpr float kSigmoidExp2[32] = {
    0.240226418f, 0.245486692f, 0.250862151f, 0.256355315f, 0.261968762f, 0.267705142f,
    0.27356711f,  0.279557467f, 0.285678953f, 0.29193452f,  0.298327059f, 0.304859579f,
    0.31153512f,  0.318356842f, 0.325327963f, 0.332451701f, 0.339731455f, 0.347170621f,
    0.354772657f, 0.362541169f, 0.370479792f, 0.378592223f, 0.386882335f, 0.395353943f,
    0.404011071f, 0.412857771f, 0.421898156f, 0.431136549f, 0.440577209f, 0.450224578f,
    0.460083216f, 0.470157713f};
// For i/16 in [1, 2], at i mod 32: c, nearly 16/i, and -log(c). Each c was searched for such that
// the float beside it is its logarithm to 32 bits. From i = 24 on the rounding of the float ln 2 is
// part of it: x just below 1 has that subtracted, and what is left is as exact.
alignas(64) inline constexpr float kInverse[32] = {
    0.5f,         0.0f,         0.0f,         0.0f,         0.0f,         0.0f,
    0.0f,         0.0f,         0.0f,         0.0f,         0.0f,         0.0f,
    0.0f,         0.0f,         0.0f,         0.0f,         1.0f,         0.941317141f,
    0.888807893f, 0.842035592f, 0.800120592f, 0.761999667f, 0.727389693f, 0.695685983f,
    0.666786015f, 0.640104651f, 0.61531812f,  0.59276545f,  0.571326673f, 0.551767766f,
    0.533501565f, 0.516221523f};
alignas(64) inline constexpr float kMinusLog[32] = {
    0.693147182f, 0.0f,         0.0f,         0.0f,         0.0f,         0.0f,
    0.0f,         0.0f,         0.0f,         0.0f,         0.0f,         0.0f,
    0.0f,         0.0f,         0.0f,         0.0f,         0.0f,         0.0604751706f,
    0.11787416f,  0.171932995f, 0.222992823f, 0.271809161f, 0.318292916f, 0.362856895f,
    0.405286103f, 0.4461236f,   0.485615879f, 0.522956491f, 0.559794128f, 0.594628036f,
    0.628293276f, 0.661219299f};

using V512 = hn::Vec512<float>;

// table[i] by the low 5 bits of t: i 32nds (or 16ths) of what t is rounded to.
HWY_INLINE V512 Lookup(const float* table, V512 t) {
  return V512{_mm512_permutex2var_ps(_mm512_load_ps(table), _mm512_castps_si512(t.raw),
                                     _mm512_load_ps(table + 16))};
}

// Not x < kExpLow.
HWY_INLINE __mmask16 NotTiny(V512 x) {
  return _mm512_cmp_ps_mask(x.raw, _mm512_set1_ps(kExpLow), _CMP_NLT_UQ);
}

// e^x = 2^floor(n) 2^(i/32) e^r with |r| <= ln(2)/64, where a quadratic is left. The quadratic is
// positive however large its argument: huge and infinite x need no more than the scaling by 2^n,
// whose result for an infinite n is 0 or infinity whatever it scales.
HWY_INLINE V512 ExpByTable(V512 x) {
  const hn::Full512<float> d;
  const V512 magic = hn::Set(d, 393216.0f);  // 1.5 2^18: rounds to 32nds
  const V512 t = hn::MulAdd(x, hn::Set(d, kLog2E), magic);
  const V512 n = hn::Sub(t, magic);
  const V512 r = ReduceByLn2(d, x, n);
  const V512 power = Lookup(kExp2, t);
  const V512 q = hn::MulAdd(r, hn::Set(d, 0.49999633f), hn::Set(d, 1.00001466f));
  const V512 p = hn::MulAdd(hn::Mul(power, r), q, power);
  return V512{_mm512_maskz_scalef_ps(NotTiny(x), p.raw, n.raw)};
}

// 1/(1 + e^-x) in as few instructions as 4 ULP allow. With -x log2(e) = n + f, the quadratic for
// 2^f is 0.2402264 (u^2 + c), u = f + b. The low part of log2(e) times n, and b, come together as
// one multiple of t = magic + n: magic was chosen for that. One Newton step follows the reciprocal
// of 14 bits.
HWY_INLINE V512 SigmoidByTable(V512 x) {
  const hn::Full512<float> d;
  // Beyond 20 the result is 1. Of NaN and a number, this instruction returns its second operand.
  const V512 low{_mm512_min_ps(_mm512_set1_ps(20.0f), x.raw)};
  const V512 magic = hn::Set(d, 414124.0f);
  const V512 t = hn::NegMulAdd(low, hn::Set(d, kLog2E), magic);
  const V512 n = hn::Sub(t, magic);
  const V512 high_part = hn::NegMulSub(low, hn::Set(d, 1.44269001f), n);
  const V512 u = hn::MulAdd(t, hn::Set(d, 3.48379217e-06f), high_part);
  const V512 square = hn::MulAdd(u, u, hn::Set(d, 2.08129287f));
  const V512 power{_mm512_scalef_ps(Lookup(kSigmoidExp2, t).raw, n.raw)};
  const V512 sum = hn::MulAdd(power, square, hn::Set(d, 1.0f));
  const V512 y{_mm512_rcp14_ps(sum.raw)};
  const V512 rest = hn::NegMulAdd(sum, y, hn::Set(d, 1.0f));
  return V512{_mm512_maskz_fmadd_ps(NotTiny(x), y.raw, rest.raw, y.raw)};
}

// x = 2^e m with m near i/16: e ln 2 - log(c) + log(1 + r), r = m c - 1. The two instructions that
// take x apart give what is right for zero, infinity, NaN, negative and denormal numbers.
HWY_INLINE V512 LogByTable(V512 x) {
  const hn::Full512<float> d;
  const V512 e{_mm512_getexp_ps(x.raw)};
  const V512 m{_mm512_getmant_ps(x.raw, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_nan)};
  const V512 t = hn::Add(m, hn::Set(d, 786432.0f));  // 1.5 2^19: rounds to 16ths
  const V512 r = hn::MulSub(m, Lookup(kInverse, t), hn::Set(d, 1.0f));
  V512 p = hn::MulAdd(hn::Set(d, -0.25017327f), r, hn::Set(d, 0.3334954f));
  p = hn::MulAdd(p, r, hn::Set(d, -0.49999997f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  return hn::MulAdd(r, p, hn::MulAdd(e, hn::Set(d, 0.693147182f), Lookup(kMinusLog, t)));
}

// Shorter vectors go through a full one, so that every width gives the same bits.
template <class D, class V = hn::Vec<D>, class F>
HWY_INLINE V AtFullWidth(D d, V x, const F& f) {
  return hn::ResizeBitCast(d, f(hn::ResizeBitCast(hn::Full512<float>(), x)));
}

#else
#define LANEWISE_MATH_HAVE_SCALEF 0

// Above this, sigmoid(x) rounds to 1.
inline constexpr float kSigmoidOne = 17.5f;

// 1 + e^-x with one rounding, for -88 <= x <= 87: 1 + 2^n + (2^n r) slope(r).
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

// e^x, at most 2 ULP. Results below 2^-126 are 0; Exp(-inf) = 0, Exp(inf) = inf, Exp(NaN) = NaN.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V Exp(D d, V x) {
#if LANEWISE_MATH_HAVE_SCALEF
  return math::AtFullWidth(d, x, [](math::V512 v) HWY_ATTR { return math::ExpByTable(v); });
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

// e^x for x <= 88 (x - max in a softmax, clamped keys), as accurate as Exp and at most its price.
// Results below 2^-126 are 0; -inf gives 0, NaN gives NaN; x > 88 is meaningless.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V ExpNoOverflow(D d, V x) {
#if LANEWISE_MATH_HAVE_SCALEF
  return Exp(d, x);
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

// Natural logarithm, at most 2 ULP, denormal inputs included (unless the CPU reads them as zero).
// Log(0) = -inf, Log(inf) = inf, Log(x < 0) = NaN, Log(NaN) = NaN.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V Log(D d, V x) {
#if LANEWISE_MATH_HAVE_SCALEF
  return math::AtFullWidth(d, x, [](math::V512 v) HWY_ATTR { return math::LogByTable(v); });
#else
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
#endif
}

// 1/(1 + e^-x), at most 4 ULP also where x is very negative; use Sigmoid(-x) for 1 - Sigmoid(x).
// Results below 2^-126 may be 0.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V Sigmoid(D d, V x) {
#if LANEWISE_MATH_HAVE_SCALEF
  return math::AtFullWidth(d, x, [](math::V512 v) HWY_ATTR { return math::SigmoidByTable(v); });
#else
  namespace hn = hwy::HWY_NAMESPACE;
  const V one = hn::Set(d, 1.0f);
  const V y = hn::Div(one, math::OnePlusExpOfMinus(d, x));
  const V big = hn::IfThenElse(hn::Gt(x, hn::Set(d, math::kSigmoidOne)), one, y);
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, math::kExpLow)), big);
#endif
}

// x/(1 + e^-x), at most 5 ULP for x >= -87.3; below that, where its magnitude is < 2e-36, it is 0
// (NaN for -inf).
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V Silu(D d, V x) {
  return hwy::HWY_NAMESPACE::Mul(x, Sigmoid(d, x));
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
