// The passes over a row that softmax and cross-entropy are made of. For use inside these kernels.
//
// They run over a group of rows one after another: the sum of one row's lanes, which takes long for
// little work, then overlaps with the next row, and a group stays in the first-level cache.
#if defined(LANEWISE_KERNELS_EXP_SUM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_EXP_SUM_INL_H_
#undef LANEWISE_KERNELS_EXP_SUM_INL_H_
#else
#define LANEWISE_KERNELS_EXP_SUM_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <limits>

#include "hwy/highway.h"
#include "kernels/loop-inl.h"
#include "kernels/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {

inline constexpr size_t kMaxRowGroup = 16;

// Rows of `size` floats in a group.
HWY_INLINE size_t RowGroup(size_t size) {
  constexpr size_t kFloats = 2048;
  return std::clamp<size_t>(kFloats / std::max<size_t>(size, 1), 1, kMaxRowGroup);
}

template <class D>
HWY_INLINE float RowMax(D d, const float* x, size_t size) {
  namespace hn = hwy::HWY_NAMESPACE;
  using V = hn::Vec<D>;
  constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
  const V largest = Fold(
      d, x, size, hn::Set(d, kMinusInfinity), kMinusInfinity,
      [](D, V a, V v) HWY_ATTR { return hn::Max(a, v); },
      [](V a, V b) HWY_ATTR { return hn::Max(a, b); });
  return hn::ReduceMax(d, largest);
}

// sum e^(x - max); with kStore the terms are written to y, which may be x. Fetches what is `ahead`
// floats further meanwhile: the other passes do little else than wait for it.
template <bool kStore, class D>
HWY_INLINE float SumExp(D d, const float* x, float* y, size_t size, float max, size_t ahead) {
  namespace hn = hwy::HWY_NAMESPACE;
  using V = hn::Vec<D>;
  const size_t lanes = hn::Lanes(d);
  const V largest = hn::Set(d, max);
  V sum0 = hn::Zero(d);
  V sum1 = hn::Zero(d);
  V sum2 = hn::Zero(d);
  V sum3 = hn::Zero(d);
  const V last = LoadLast(d, x, size);  // before anything is overwritten
  size_t i = 0;
  for (; i + 4 * lanes <= size; i += 4 * lanes) {
    for (size_t j = i; j < i + 4 * lanes; j += lanes) {
      FetchAhead(x + j, ahead);
      if constexpr (kStore) FetchAhead(y + j, ahead);
    }
    const V e0 = ExpNoOverflow(d, hn::Sub(hn::LoadU(d, x + i), largest));
    const V e1 = ExpNoOverflow(d, hn::Sub(hn::LoadU(d, x + i + lanes), largest));
    const V e2 = ExpNoOverflow(d, hn::Sub(hn::LoadU(d, x + i + 2 * lanes), largest));
    const V e3 = ExpNoOverflow(d, hn::Sub(hn::LoadU(d, x + i + 3 * lanes), largest));
    if constexpr (kStore) {
      hn::StoreU(e0, d, y + i);
      hn::StoreU(e1, d, y + i + lanes);
      hn::StoreU(e2, d, y + i + 2 * lanes);
      hn::StoreU(e3, d, y + i + 3 * lanes);
    }
    sum0 = hn::Add(sum0, e0);
    sum1 = hn::Add(sum1, e1);
    sum2 = hn::Add(sum2, e2);
    sum3 = hn::Add(sum3, e3);
  }
  for (; i + lanes <= size; i += lanes) {
    const V e = ExpNoOverflow(d, hn::Sub(hn::LoadU(d, x + i), largest));
    if constexpr (kStore) hn::StoreU(e, d, y + i);
    sum0 = hn::Add(sum0, e);
  }
  if (i < size) {
    const V e = ExpNoOverflow(d, hn::Sub(last, largest));
    if constexpr (kStore) StoreLast(e, d, y, size);
    sum1 = hn::Add(sum1, hn::IfThenZeroElse(hn::FirstN(d, i - TailStart(lanes, size)), e));
  }
  return hn::ReduceSum(d, hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3)));
}

// y = factor y - shift.
template <class D>
HWY_INLINE void ScaleRow(D d, float* y, size_t size, float factor, float shift) {
  namespace hn = hwy::HWY_NAMESPACE;
  using V = hn::Vec<D>;
  const size_t lanes = hn::Lanes(d);
  const V f = hn::Set(d, factor);
  const V s = hn::Set(d, shift);
  const V last = hn::MulSub(LoadLast(d, y, size), f, s);
  size_t i = 0;
  for (; i + 2 * lanes <= size; i += 2 * lanes) {
    const V a = hn::MulSub(hn::LoadU(d, y + i), f, s);
    const V b = hn::MulSub(hn::LoadU(d, y + i + lanes), f, s);
    hn::StoreU(a, d, y + i);
    hn::StoreU(b, d, y + i + lanes);
  }
  if (i + lanes <= size) {
    hn::StoreU(hn::MulSub(hn::LoadU(d, y + i), f, s), d, y + i);
    i += lanes;
  }
  if (i < size) StoreLast(last, d, y, size);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
