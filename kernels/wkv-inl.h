// Parts of the WKV scan that its forward and backward passes share.
//
// A segment of up to kWkvSegment steps of one vector of channels is staged in three phases: the
// front turns raw inputs into vectors [step][lane] in scratch memory, the cores run the recurrence
// over groups of slots with the states in registers, the back finishes what is not recurrent. Only
// the front and the back know of partial vectors: unused lanes hold finite values that no one
// stores.
#if defined(LANEWISE_KERNELS_WKV_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_WKV_INL_H_
#undef LANEWISE_KERNELS_WKV_INL_H_
#else
#define LANEWISE_KERNELS_WKV_INL_H_
#endif

#include <algorithm>
#include <cstddef>

#include "hwy/highway.h"
#include "kernels/math-inl.h"
#include "kernels/wkv.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace wkv {

namespace hn = hwy::HWY_NAMESPACE;

// No vector is wider than a block, so a block is a whole number of vectors.
using D = hn::CappedTag<float, kWkvBlock>;
using V = hn::Vec<D>;

inline constexpr float kKeyLimit = 10.0f;
inline constexpr float kEpsilon = 1e-6f;
inline constexpr size_t kMaxLanes = D().MaxLanes();

// Slots whose two states stay in registers together.
#if HWY_TARGET == HWY_SSE2 || HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_SSE4 || \
    HWY_TARGET == HWY_AVX2
inline constexpr size_t kMaxGroup = 4;
#else
inline constexpr size_t kMaxGroup = 8;
#endif

// Groups are 8, 4, 3, 2 or 1 slots.
HWY_INLINE size_t GroupSize(size_t slots_left) {
  if (kMaxGroup == 8 && slots_left >= 8) return 8;
  return std::min<size_t>(slots_left, 4);
}

// The first `valid` lanes in memory, the others zero; kTail: fewer than all.
template <bool kTail>
HWY_INLINE V LoadPart(D d, const float* from, size_t valid) {
  if constexpr (kTail) return hn::LoadN(d, from, valid);
  return hn::LoadU(d, from);
}

template <bool kTail>
HWY_INLINE void StorePart(V v, D d, float* to, size_t valid) {
  if constexpr (kTail) {
    hn::StoreN(v, d, to, valid);
  } else {
    hn::StoreU(v, d, to);
  }
}

// Clamped to [low, high]; NaN passes.
HWY_INLINE V Clamp(D d, V x, float low, float high) {
#if HWY_ARCH_X86
  // Min and Max return their second argument where one is NaN.
  return hn::Min(hn::Set(d, high), hn::Max(hn::Set(d, low), x));
#else
  const V raised = hn::IfThenElse(hn::Lt(x, hn::Set(d, low)), hn::Set(d, low), x);
  return hn::IfThenElse(hn::Gt(raised, hn::Set(d, high)), hn::Set(d, high), raised);
#endif
}

// e^x for |x| <= 80: as ExpNoOverflow, without the test for results that are too small where that
// costs.
HWY_INLINE V ExpModerate(D d, V x) {
#if LANEWISE_MATH_HAVE_SCALEF
  return ExpNoOverflow(d, x);
#else
  const hn::RebindToUnsigned<D> du;
  const V magic = hn::Set(d, math::kRoundMagic + 127.0f);  // with the exponent's bias
  const V t = hn::MulAdd(x, hn::Set(d, math::kLog2E), magic);
  const V p = math::ExpReduced(d, math::ReduceByLn2(d, x, hn::Sub(t, magic)));
  return hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, t))));
#endif
}

HWY_INLINE V Key(D d, V raw) { return ExpModerate(d, Clamp(d, raw, -kKeyLimit, kKeyLimit)); }

// e^-x, from which a sigmoid is made. Where |x| > 43 it stays at e^-43 or e^43: the product of two
// still is a float, and a sigmoid is off by 2e-19.
HWY_INLINE V ExpMinus(D d, V x) {
  constexpr float kLimit = 43.0f;
  return ExpModerate(d, hn::Neg(Clamp(d, x, -kLimit, kLimit)));
}

// sigmoid(x) and sigmoid(y) from e^-x and e^-y, with one division. sigmoid(-x) is e^-x sigmoid(x).
HWY_INLINE void SigmoidPair(D d, V exp_minus_x, V exp_minus_y, V& sigmoid_x, V& sigmoid_y) {
  const V one = hn::Set(d, 1.0f);
  const V x = hn::Add(one, exp_minus_x);
  const V y = hn::Add(one, exp_minus_y);
  const V inv = hn::Div(one, hn::Mul(x, y));
  sigmoid_x = hn::Mul(y, inv);
  sigmoid_y = hn::Mul(x, inv);
}

// Rows [0, rows) of m at columns [col, col + valid) to or from vectors [row][lane].
inline void LoadRows(D d, Mat<const float> m, size_t rows, size_t col, size_t valid, float* to) {
  const size_t N = hn::Lanes(d);
  for (size_t row = 0; row < rows; ++row) {
    const V x = m.data == nullptr ? hn::Zero(d) : hn::LoadN(d, m.Row(row) + col, valid);
    hn::Store(x, d, to + row * N);
  }
}

inline void StoreRows(D d, const float* from, size_t rows, size_t col, size_t valid, Mat<float> m) {
  const size_t N = hn::Lanes(d);
  for (size_t row = 0; row < rows; ++row) {
    hn::StoreN(hn::Load(d, from + row * N), d, m.Row(row) + col, valid);
  }
}

// One slot's state = a state + gate x.
HWY_INLINE void Update(V a, V gate, V xn, V xd, V& num, V& den) {
  num = hn::MulAdd(a, num, hn::Mul(gate, xn));
  den = hn::MulAdd(a, den, hn::Mul(gate, xd));
}

// A gate's rows of one segment: gate of step t and slot s is data[t * stride + s].
struct Gate {
  const float* data;
  size_t stride;
};

}  // namespace wkv
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
