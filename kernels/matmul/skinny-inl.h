// Few rows: the work is to read B once. No packing; for a decoded token this is a matrix-vector
// product at the speed of memory.
#if defined(LANEWISE_KERNELS_MATMUL_SKINNY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_MATMUL_SKINNY_INL_H_
#undef LANEWISE_KERNELS_MATMUL_SKINNY_INL_H_
#else
#define LANEWISE_KERNELS_MATMUL_SKINNY_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/matmul.h"
#include "kernels/matmul/panels-inl.h"
#include "kernels/matmul/parts-inl.h"
#include "kernels/matmul/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

// Rows of B that are read side by side: long enough runs for the prefetcher, while C stays in L1.
inline constexpr size_t kSkinnyStepsK = 16;

// B row-major [k,n]: sixteen rows of it at a time, from the first column to the last, onto C.
template <typename T>
HWY_INLINE void RunSkinnyAlongN(const MatmulArgs& args, const T* weights, const MatmulRange& range,
                                float* panel) {
  Addend add = EpilogueAddend(args);
  for (size_t k = 0; k == 0 || k < args.k; k += kSkinnyStepsK) {
    RunPanels(args, weights, range, k, std::min(kSkinnyStepsK, args.k - k), add, panel);
    add = {args.c, args.c_stride};
  }
}

inline constexpr size_t kDotRows = 4;
inline constexpr size_t kDotColumns = 4;

#define LW_DOT_COLUMNS(COLUMN, r) COLUMN(r, 0) COLUMN(r, 1) COLUMN(r, 2) COLUMN(r, 3)
#define LW_DOT_PAIRS(PAIR) \
  LW_DOT_COLUMNS(PAIR, 0) LW_DOT_COLUMNS(PAIR, 1) LW_DOT_COLUMNS(PAIR, 2) LW_DOT_COLUMNS(PAIR, 3)

// out[0..4) = the sums of the lanes of four vectors, in the same order for each.
HWY_INLINE void StoreSums(VF s0, VF s1, VF s2, VF s3, float* HWY_RESTRICT out) {
  const DF d;
#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR
  out[0] = hn::ReduceSum(d, s0);
  out[1] = hn::ReduceSum(d, s1);
  out[2] = hn::ReduceSum(d, s2);
  out[3] = hn::ReduceSum(d, s3);
#else
  const hn::RepartitionToWide<DF> dw;
  const VF s01 = hn::Add(hn::InterleaveLower(d, s0, s1), hn::InterleaveUpper(d, s0, s1));
  const VF s23 = hn::Add(hn::InterleaveLower(d, s2, s3), hn::InterleaveUpper(d, s2, s3));
  const auto lower = hn::InterleaveLower(dw, hn::BitCast(dw, s01), hn::BitCast(dw, s23));
  const auto upper = hn::InterleaveUpper(dw, hn::BitCast(dw, s01), hn::BitCast(dw, s23));
  const VF sums = hn::Add(hn::BitCast(d, lower), hn::BitCast(d, upper));  // per block of four
  const hn::FixedTag<float, 4> d4;
#if HWY_MAX_BYTES == 16
  hn::StoreU(sums, d4, out);
#else
  const hn::Half<DF> dh;
  const auto half = hn::Add(hn::LowerHalf(dh, sums), hn::UpperHalf(dh, sums));
#if HWY_MAX_BYTES == 32
  hn::StoreU(half, d4, out);
#else
  hn::StoreU(hn::Add(hn::LowerHalf(d4, half), hn::UpperHalf(d4, half)), d4, out);
#endif
#endif
#endif
}

// Pairs of bf16 as they lie, and the even and odd ones of them as float32: one operation each.
using DPairs = hn::RebindToUnsigned<DF>;
using VPairs = hn::Vec<DPairs>;
HWY_INLINE VPairs LoadPairs(const BFloat16* p) {
  VPairs pairs = hn::LoadU(DPairs(), reinterpret_cast<const uint32_t*>(p));
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR && (HWY_COMPILER_GCC || HWY_COMPILER_CLANG)
  __asm__("" : "+v"(pairs.raw));  // or it would be loaded twice, once for either half
#endif
  return pairs;
}
HWY_INLINE VPairs LoadPairsN(const BFloat16* p, size_t n) {
  const hn::Repartition<uint16_t, DF> d16;
  return hn::BitCast(DPairs(), hn::LoadN(d16, reinterpret_cast<const uint16_t*>(p), n));
}
HWY_INLINE VF EvenOf(VPairs pairs) { return hn::BitCast(DF(), hn::ShiftLeft<16>(pairs)); }
HWY_INLINE VF OddOf(VPairs pairs) {
  return hn::BitCast(DF(), hn::And(pairs, hn::Set(DPairs(), 0xFFFF0000U)));
}

// out[r * 4 + j] = sum_k x[r, k] * w[j, k] for kRows rows and four columns, whose addresses are in
// `w`. Fetches kFetch rows of `ahead` meanwhile. Against bf16, x comes from SplitPairs.
template <typename T, size_t kRows, size_t kFetch>
void DotTile(const float* x, size_t x_row, const T* const* w, const T* ahead, size_t ahead_row,
             size_t k, float* HWY_RESTRICT out) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  const T* HWY_RESTRICT w0 = w[0];
  const T* HWY_RESTRICT w1 = w[1];
  const T* HWY_RESTRICT w2 = w[2];
  const T* HWY_RESTRICT w3 = w[3];
#define LW_DOT_DECLARE(r, j) VF s##r##j = hn::Zero(d);
  LW_DOT_PAIRS(LW_DOT_DECLARE)
#undef LW_DOT_DECLARE
#define LW_DOT_FMA(r, j) s##r##j = hn::MulAdd(x##r, v##j, s##r##j);
#define LW_DOT_ROW(r, load, at)               \
  if constexpr (kRows > r) {                  \
    const VF x##r = load(x + r * x_row + at); \
    LW_DOT_COLUMNS(LW_DOT_FMA, r)             \
  }
#define LW_DOT_ROWS(load, at) \
  LW_DOT_ROW(0, load, at) LW_DOT_ROW(1, load, at) LW_DOT_ROW(2, load, at) LW_DOT_ROW(3, load, at)
#define LW_DOT_STEP(load)                                                              \
  const VF v0 = load(w0 + i), v1 = load(w1 + i), v2 = load(w2 + i), v3 = load(w3 + i); \
  LW_DOT_ROWS(load, i)
#define LW_DOT_PAIR_STEP(load)                                                             \
  const VPairs p0 = load(w0 + i), p1 = load(w1 + i), p2 = load(w2 + i), p3 = load(w3 + i); \
  {                                                                                        \
    const VF v0 = EvenOf(p0), v1 = EvenOf(p1), v2 = EvenOf(p2), v3 = EvenOf(p3);           \
    LW_DOT_ROWS(LoadWide, i)                                                               \
  }                                                                                        \
  {                                                                                        \
    const VF v0 = OddOf(p0), v1 = OddOf(p1), v2 = OddOf(p2), v3 = OddOf(p3);               \
    LW_DOT_ROWS(LoadWide, i + lanes)                                                       \
  }
#define LW_DOT_LOAD_N(p) LoadWideN(p, k - i)
#define LW_DOT_LOAD_PAIRS_N(p) LoadPairsN(p, k - i)
  constexpr bool kPairs = std::is_same_v<T, BFloat16>;
  const size_t step = kPairs ? 2 * lanes : lanes;
  size_t i = 0;
  for (; i + step <= k; i += step) {
    PrefetchToL2(ahead + i);
    if constexpr (kFetch > 1) PrefetchToL2(ahead + ahead_row + i);
    if constexpr (kFetch > 2) PrefetchToL2(ahead + 2 * ahead_row + i);
    if constexpr (kFetch > 2) PrefetchToL2(ahead + 3 * ahead_row + i);
    if constexpr (kPairs) {
      LW_DOT_PAIR_STEP(LoadPairs)
    } else {
      LW_DOT_STEP(LoadWide)
    }
  }
  if (i < k) {
    if constexpr (kPairs) {
      LW_DOT_PAIR_STEP(LW_DOT_LOAD_PAIRS_N)
    } else {
      LW_DOT_STEP(LW_DOT_LOAD_N)
    }
  }
#define LW_DOT_STORE(r) \
  if constexpr (kRows > r) StoreSums(s##r##0, s##r##1, s##r##2, s##r##3, out + r * kDotColumns);
  LW_DOT_STORE(0) LW_DOT_STORE(1) LW_DOT_STORE(2) LW_DOT_STORE(3)
#undef LW_DOT_STORE
#undef LW_DOT_LOAD_PAIRS_N
#undef LW_DOT_LOAD_N
#undef LW_DOT_PAIR_STEP
#undef LW_DOT_STEP
#undef LW_DOT_ROWS
#undef LW_DOT_ROW
#undef LW_DOT_FMA
}

#undef LW_DOT_PAIRS
#undef LW_DOT_COLUMNS

template <typename T>
using DotFunction = void (*)(const float*, size_t, const T* const*, const T*, size_t, size_t,
                             float*);

template <typename T>
HWY_INLINE DotFunction<T> SelectDot(size_t rows, size_t fetch) {
  static constexpr DotFunction<T> kTable[kDotRows][3] = {
      {&DotTile<T, 1, 1>, &DotTile<T, 1, 2>, &DotTile<T, 1, 4>},
      {&DotTile<T, 2, 1>, &DotTile<T, 2, 2>, &DotTile<T, 2, 4>},
      {&DotTile<T, 3, 1>, &DotTile<T, 3, 2>, &DotTile<T, 3, 4>},
      {&DotTile<T, 4, 1>, &DotTile<T, 4, 2>, &DotTile<T, 4, 4>}};
  return kTable[rows - 1][fetch / 2];
}

// Rows of B in each stream from those at work to those that are fetched: as many bytes for either
// type.
template <typename T>
inline constexpr size_t kAheadRows = std::is_same_v<T, float> ? 1 : 2;

// Steps of k that SplitPairs writes for each row.
HWY_INLINE size_t SplitSteps(size_t k) {
  const size_t pair = 2 * hn::Lanes(DF());
  return CeilDiv(k, pair) * pair;
}

// Rows of A in the order of pairs of weights: for every two vectors of steps the even ones, then
// the odd ones, zeros at the end.
HWY_INLINE void SplitPairs(const MatmulArgs& args, const MatmulRange& range,
                           float* HWY_RESTRICT out) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  const size_t width = SplitSteps(args.k);
  for (size_t row = range.m_begin; row < range.m_end; ++row, out += width) {
    const float* a = args.a.data + row * args.a.row_stride;
    size_t k = 0;
    for (; k + 2 * lanes <= args.k; k += 2 * lanes) {
      VF even, odd;
      hn::LoadInterleaved2(d, a + k, even, odd);
      hn::StoreU(even, d, out + k);
      hn::StoreU(odd, d, out + k + lanes);
    }
    if (k == args.k) continue;
    for (size_t i = 0; i < 2 * lanes; ++i) {
      out[k + i % 2 * lanes + i / 2] = k + i < args.k ? a[k + i] : 0.0f;
    }
  }
}

// B row-major [n,k]: dot products of the rows of A with four rows of B at a time, one from each
// quarter of the range: four streams, each from end to end, are what the prefetchers of CPUs like.
template <typename T>
HWY_INLINE void RunSkinnyAlongK(const MatmulArgs& args, const T* weights, const MatmulRange& range,
                                float* scratch) {
  const float* a = args.a.data + range.m_begin * args.a.row_stride;
  size_t a_row = args.a.row_stride;
  if constexpr (std::is_same_v<T, BFloat16>) {
    SplitPairs(args, range, scratch);
    a = scratch;
    a_row = SplitSteps(args.k);
  }
  const Addend add = EpilogueAddend(args);
  const size_t b_n = args.b.strided.col_stride;
  // The passes over four columns share out the rows that are fetched.
  const size_t passes = CeilDiv(range.m_end - range.m_begin, kDotRows);
  const size_t fetch = passes == 1 ? 4 : passes == 2 ? 2 : 1;
  // The last quarter may be shorter.
  const size_t quarter = CeilDiv(range.n_end - range.n_begin, kDotColumns);
  for (size_t i = 0; i < quarter; ++i) {
    const size_t first = range.n_begin + i;
    const size_t columns = std::min(kDotColumns, CeilDiv(range.n_end - first, quarter));
    const T* w[kDotColumns];
    for (size_t j = 0; j < kDotColumns; ++j) {
      w[j] = weights + (first + std::min(j, columns - 1) * quarter) * b_n;
    }
    for (size_t row = range.m_begin; row < range.m_end; row += kDotRows) {
      const size_t rows = std::min(kDotRows, range.m_end - row);
      const size_t pass = (row - range.m_begin) / kDotRows;
      const float* x = a + (row - range.m_begin) * a_row;
      const T* ahead = w[0] + (kAheadRows<T> + pass * fetch * quarter) * b_n;
      float sums[kDotRows * kDotColumns];
      SelectDot<T>(rows, fetch)(x, a_row, w, ahead, quarter * b_n, args.k, sums);
      for (size_t r = 0; r < rows; ++r) {
        float* c = args.c + (row + r) * args.c_stride + first;
        const float* addend =
            add.data == nullptr ? nullptr : add.data + (row + r) * add.stride + first;
        for (size_t j = 0; j < columns; ++j) {
          const float sum = sums[r * kDotColumns + j];
          c[j * quarter] = addend == nullptr ? sum : addend[j * quarter] + sum;
        }
      }
    }
  }
}

// Whether a product takes one of these paths. Depends on the product alone, never on the range.
HWY_INLINE bool IsSkinny(const MatmulArgs& args) {
  if (args.m > kMatmulSkinnyRows) return false;
  const MatmulOperand& b = args.b.strided;
  if (b.col_stride == 1) {
    return args.a.col_stride == 1 || (args.a.row_stride == 1 && args.b.bf16 == nullptr);
  }
  return b.row_stride == 1 && args.a.col_stride == 1;
}

// For any range of a product with these sizes, if it takes one of these paths.
HWY_INLINE size_t SkinnyScratchBytes(size_t m, size_t k) {
  const size_t rows = std::min(m, kMatmulSkinnyRows);
  return (std::max(PanelFloats(kSkinnyStepsK), rows * SplitSteps(k)) + 16) * sizeof(float);
}

template <typename T>
HWY_INLINE void RunSkinnyOf(const MatmulArgs& args, const T* weights, const MatmulRange& range,
                            void* scratch) {
  if (args.b.strided.col_stride == 1) {
    RunSkinnyAlongN(args, weights, range, AlignUp(scratch));
  } else {
    RunSkinnyAlongK(args, weights, range, AlignUp(scratch));
  }
}

HWY_INLINE void RunSkinny(const MatmulArgs& args, const MatmulRange& range, void* scratch) {
  if (args.b.bf16 != nullptr) {
    RunSkinnyOf(args, args.b.bf16, range, scratch);
  } else {
    RunSkinnyOf(args, args.b.strided.data, range, scratch);
  }
}

}  // namespace matmul
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
