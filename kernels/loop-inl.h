// Loops over arrays of float: full vectors, then one partial vector. For use inside other kernels.
//
// Each takes the pointers of its inputs and calls f(d, lanes...), which returns the vector to
// store. Every load of an iteration comes before its store, so the output may be any of the inputs.
#if defined(LANEWISE_KERNELS_LOOP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_LOOP_INL_H_
#undef LANEWISE_KERNELS_LOOP_INL_H_
#else
#define LANEWISE_KERNELS_LOOP_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {

// y[i] = f(x[i]).
template <class D, class F>
HWY_INLINE void Map(D d, const float* x, float* y, size_t n, const F& f) {
  namespace hn = hwy::HWY_NAMESPACE;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    const auto v0 = hn::LoadU(d, x + i);
    const auto v1 = hn::LoadU(d, x + i + lanes);
    const auto v2 = hn::LoadU(d, x + i + 2 * lanes);
    const auto v3 = hn::LoadU(d, x + i + 3 * lanes);
    hn::StoreU(f(d, v0), d, y + i);
    hn::StoreU(f(d, v1), d, y + i + lanes);
    hn::StoreU(f(d, v2), d, y + i + 2 * lanes);
    hn::StoreU(f(d, v3), d, y + i + 3 * lanes);
  }
  for (; i < n; i += lanes) {
    const size_t count = HWY_MIN(lanes, n - i);
    hn::StoreN(f(d, hn::LoadN(d, x + i, count)), d, y + i, count);
  }
}

// y[i] = f(a[i], b[i]).
template <class D, class F>
HWY_INLINE void Map(D d, const float* a, const float* b, float* y, size_t n, const F& f) {
  namespace hn = hwy::HWY_NAMESPACE;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto a0 = hn::LoadU(d, a + i);
    const auto a1 = hn::LoadU(d, a + i + lanes);
    const auto b0 = hn::LoadU(d, b + i);
    const auto b1 = hn::LoadU(d, b + i + lanes);
    hn::StoreU(f(d, a0, b0), d, y + i);
    hn::StoreU(f(d, a1, b1), d, y + i + lanes);
  }
  for (; i < n; i += lanes) {
    const size_t count = HWY_MIN(lanes, n - i);
    hn::StoreN(f(d, hn::LoadN(d, a + i, count), hn::LoadN(d, b + i, count)), d, y + i, count);
  }
}

// Folds x[0, n) into four accumulators that start at `initial`: acc = step(d, acc, x), where a
// partial vector is filled up with `fill`; returns their combination by join(acc, acc).
template <class D, class V, class Step, class Join>
HWY_INLINE V Fold(D d, const float* x, size_t n, V initial, float fill, const Step& step,
                  const Join& join) {
  namespace hn = hwy::HWY_NAMESPACE;
  const size_t lanes = hn::Lanes(d);
  V a0 = initial;
  V a1 = initial;
  V a2 = initial;
  V a3 = initial;
  size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a0 = step(d, a0, hn::LoadU(d, x + i));
    a1 = step(d, a1, hn::LoadU(d, x + i + lanes));
    a2 = step(d, a2, hn::LoadU(d, x + i + 2 * lanes));
    a3 = step(d, a3, hn::LoadU(d, x + i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) a0 = step(d, a0, hn::LoadU(d, x + i));
  if (i < n) a1 = step(d, a1, hn::LoadNOr(hn::Set(d, fill), d, x + i, n - i));
  return join(join(a0, a1), join(a2, a3));
}

// Sums of the lanes of four vectors of float, to out[0..3]: fewer steps than four sums, and they
// overlap. The order of each sum is that of the others.
template <class D, class V>
HWY_INLINE void SumLanes(D d, V v0, V v1, V v2, V v3, float* HWY_RESTRICT out) {
  namespace hn = hwy::HWY_NAMESPACE;
#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR
  out[0] = hn::ReduceSum(d, v0);
  out[1] = hn::ReduceSum(d, v1);
  out[2] = hn::ReduceSum(d, v2);
  out[3] = hn::ReduceSum(d, v3);
#else
  const hn::RepartitionToWide<D> wide;
  // In each block of four lanes: lanes 0+2 of v0 and v1, lanes 1+3 of both; then one of each.
  const V v01 = hn::Add(hn::InterleaveLower(d, v0, v1), hn::InterleaveUpper(d, v0, v1));
  const V v23 = hn::Add(hn::InterleaveLower(d, v2, v3), hn::InterleaveUpper(d, v2, v3));
  const auto wide01 = hn::BitCast(wide, v01);
  const auto wide23 = hn::BitCast(wide, v23);
  V sums = hn::Add(hn::BitCast(d, hn::InterleaveLower(wide, wide01, wide23)),
                   hn::BitCast(d, hn::InterleaveUpper(wide, wide01, wide23)));
  if constexpr (HWY_MAX_BYTES >= 32) sums = hn::Add(sums, hn::SwapAdjacentBlocks(sums));
  if constexpr (HWY_MAX_BYTES >= 64) sums = hn::Add(sums, hn::ReverseBlocks(d, sums));
  const hn::CappedTag<float, 4> four;
  hn::StoreU(hn::ResizeBitCast(four, sums), four, out);
#endif
}

// The line that is so many elements ahead of p. It may be beyond the array, where no pointer may be
// computed.
template <typename T>
HWY_INLINE const T* LineAhead(const T* p, size_t elements) {
  const uintptr_t line = reinterpret_cast<uintptr_t>(p) + elements * sizeof(T);
  return reinterpret_cast<const T*>(line);  // NOLINT(performance-no-int-to-ptr)
}
HWY_INLINE void FetchAhead(const float* p, size_t floats) { hwy::Prefetch(LineAhead(p, floats)); }
// Without making room for it in L1.
template <typename T>
HWY_INLINE void FetchAheadToL2(const T* p, size_t elements) {
#if HWY_COMPILER_GCC || HWY_COMPILER_CLANG
  __builtin_prefetch(LineAhead(p, elements), 0, 2);
#else
  hwy::Prefetch(LineAhead(p, elements));
#endif
}

// The last vector of x[0, n): it ends at n and overlaps the one before it, unless n is less than a
// vector (then it starts at 0 and what it lacks is -infinity). A partial masked store would make
// loads of what follows it wait, which in rows of odd width is the next row.
HWY_INLINE size_t TailStart(size_t lanes, size_t n) { return n < lanes ? 0 : n - lanes; }

template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> LoadLast(D d, const float* x, size_t n) {
  namespace hn = hwy::HWY_NAMESPACE;
  const size_t lanes = hn::Lanes(d);
  if (n >= lanes) return hn::LoadU(d, x + TailStart(lanes, n));
  return hn::LoadNOr(hn::Neg(hn::Inf(d)), d, x, n);
}

template <class D, class V>
HWY_INLINE void StoreLast(V v, D d, float* y, size_t n) {
  namespace hn = hwy::HWY_NAMESPACE;
  const size_t lanes = hn::Lanes(d);
  if (n >= lanes) {
    hn::StoreU(v, d, y + TailStart(lanes, n));
  } else {
    hn::StoreN(v, d, y, n);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
