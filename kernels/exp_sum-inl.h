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

// Lines of a row from `next` on that a pass fetches while it goes over four vectors at i of
// another; so many for all of the row, which then comes into the first-level cache.
inline constexpr size_t kFetchAll = 4;
template <size_t kLines>
HWY_INLINE void FetchNext(const float* next, size_t i, size_t lanes) {
  for (size_t j = 0; j < kLines; ++j) {
    const size_t at = i / 4 * kLines + j * lanes;
    if constexpr (kLines == kFetchAll) {
      FetchAhead(next, at);
    } else {
      FetchAheadToL2(next, at);
    }
  }
}

template <size_t kFetch = 0, class D>
HWY_INLINE float RowMax(D d, const float* x, size_t size, const float* next = nullptr) {
  namespace hn = hwy::HWY_NAMESPACE;
  using V = hn::Vec<D>;
  const size_t lanes = hn::Lanes(d);
  V max0 = LoadLast(d, x, size);
  V max1 = max0;
  V max2 = max0;
  V max3 = max0;
  size_t i = 0;
  for (; i + 4 * lanes <= size; i += 4 * lanes) {
    FetchNext<kFetch>(next, i, lanes);
    max0 = hn::Max(max0, hn::LoadU(d, x + i));
    max1 = hn::Max(max1, hn::LoadU(d, x + i + lanes));
    max2 = hn::Max(max2, hn::LoadU(d, x + i + 2 * lanes));
    max3 = hn::Max(max3, hn::LoadU(d, x + i + 3 * lanes));
  }
  for (; i + lanes <= size; i += lanes) max0 = hn::Max(max0, hn::LoadU(d, x + i));
  return hn::ReduceMax(d, hn::Max(hn::Max(max0, max1), hn::Max(max2, max3)));
}

// sum e^(x - max); with kStore the terms are written to y, which may be x. The next row
// is at `next`, that of y, if it is another, at `next_y`.
template <bool kStore, size_t kFetch = kFetchAll, class D>
HWY_INLINE float SumExp(D d, const float* x, float* y, size_t size, float max, const float* next,
                        const float* next_y = nullptr) {
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
    FetchNext<kFetch>(next, i, lanes);
    if (kStore && next_y != nullptr) FetchNext<kFetch>(next_y, i, lanes);
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
template <size_t kFetch = 0, class D>
HWY_INLINE void ScaleRow(D d, float* y, size_t size, float factor, float shift,
                         const float* next = nullptr) {
  namespace hn = hwy::HWY_NAMESPACE;
  using V = hn::Vec<D>;
  const size_t lanes = hn::Lanes(d);
  const V f = hn::Set(d, factor);
  const V s = hn::Set(d, shift);
  const V last = hn::MulSub(LoadLast(d, y, size), f, s);
  size_t i = 0;
  for (; i + 4 * lanes <= size; i += 4 * lanes) {
    FetchNext<kFetch>(next, i, lanes);
    const V y0 = hn::MulSub(hn::LoadU(d, y + i), f, s);
    const V y1 = hn::MulSub(hn::LoadU(d, y + i + lanes), f, s);
    const V y2 = hn::MulSub(hn::LoadU(d, y + i + 2 * lanes), f, s);
    const V y3 = hn::MulSub(hn::LoadU(d, y + i + 3 * lanes), f, s);
    hn::StoreU(y0, d, y + i);
    hn::StoreU(y1, d, y + i + lanes);
    hn::StoreU(y2, d, y + i + 2 * lanes);
    hn::StoreU(y3, d, y + i + 3 * lanes);
  }
  for (; i + lanes <= size; i += lanes) {
    hn::StoreU(hn::MulSub(hn::LoadU(d, y + i), f, s), d, y + i);
  }
  if (i < size) StoreLast(last, d, y, size);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
