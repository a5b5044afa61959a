// Few rows: the work is to read B once. No packing; for a decoded token this is a matrix-vector
// product at the speed of memory.
#if defined(LANEWISE_KERNELS_MATMUL_SKINNY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_MATMUL_SKINNY_INL_H_
#undef LANEWISE_KERNELS_MATMUL_SKINNY_INL_H_
#else
#define LANEWISE_KERNELS_MATMUL_SKINNY_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "hwy/highway.h"
#include "kernels/loop-inl.h"
#include "kernels/matmul.h"
#include "kernels/matmul/panels-inl.h"
#include "kernels/matmul/parts-inl.h"
#include "kernels/matmul/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

// Steps of k that are summed before they are added to C: those of a tile, which fetches so many of
// the next one's rows of B.
inline constexpr size_t kSkinnyStepsK = 64;
// Of one or two rows of A (against bf16, one, and only with long rows of B), steps whose rows of B
// are read side by side: long enough runs for the prefetcher, while the sums stay in L1.
inline constexpr size_t kRunRows = 2;
inline constexpr size_t kRunSteps = 16;
inline constexpr size_t kLongHalfRow = 1024;

// The tile for few rows. What it need not fetch may be fetched all the same.
template <typename T>
HWY_INLINE TileFunction SelectSkinnyTile(bool along_k, size_t rows, size_t vectors, bool fetch) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return SelectHalfTile(rows, vectors);
  } else {
    return fetch ? SelectTile<kFetchB>(along_k, rows, vectors)
                 : SelectTile<0>(along_k, rows, vectors);
  }
}

// A tile of kRows rows that goes on with the sums in `add`.
template <typename T, size_t kRows, size_t... kIndex>
HWY_INLINE TileFunction SelectContinuing(size_t vectors, std::index_sequence<kIndex...>) {
  static constexpr TileFunction kTiles[] = {
      &ComputeTile<true, kRows, kIndex + 1, 0, false, T, true>...};
  return kTiles[vectors - 1];
}
template <typename T>
HWY_INLINE TileFunction SelectContinuing(size_t rows, size_t vectors) {
  constexpr auto kVectors = std::make_index_sequence<kWideVectors>();
  return rows == 1 ? SelectContinuing<T, 1>(vectors, kVectors)
                   : SelectContinuing<T, kRunRows>(vectors, kVectors);
}

// tile.k steps of `columns` columns of B from step k on: where they lie, or packed if they do not
// fill whole vectors. Returns whether they are packed.
template <typename T>
HWY_INLINE bool SetPanel(const MatmulArgs& args, const T* weights, size_t k, size_t column,
                         size_t columns, float* panel, Tile& tile) {
  const size_t lanes = hn::Lanes(DF());
  const size_t stride = args.b.strided.row_stride;
  const T* from = weights + k * stride + column;
  const bool packed = columns % lanes != 0;
  if (packed) PackBPanel(from, stride, 1, columns, tile.k, panel);
  tile.b = packed ? panel : reinterpret_cast<const float*>(from);
  tile.b_k = packed ? CeilDiv(columns, lanes) * lanes : stride;
  tile.next_b = reinterpret_cast<uintptr_t>(tile.b);  // nothing new, unless the caller knows better
  return packed;
}

// Up to kRunRows rows: kRunSteps rows of B at a time, from the first column to the last, onto
// `sums`, and these onto C.
template <typename T>
HWY_INLINE void RunAlongRows(const MatmulArgs& args, const T* weights, const MatmulRange& range,
                             float* panel, float* sums) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  const size_t rows = range.m_end - range.m_begin;
  const size_t size = range.n_end - range.n_begin;
  Addend add = EpilogueAddend(args);
  Tile tile;
  tile.a_row = args.a.row_stride;
  tile.c_row = tile.add_row = CeilDiv(size, lanes) * lanes;
  tile.last = 0;
  for (size_t block = 0; block == 0 || block < args.k; block += kSkinnyStepsK) {
    const size_t end = std::min(args.k, block + kSkinnyStepsK);
    for (size_t k = block; k == block || k < end; k += kRunSteps) {
      tile.k = std::min(kRunSteps, end - k);
      tile.a = args.a.data + range.m_begin * args.a.row_stride + k;
      for (size_t at = 0; at < size;) {
        const size_t width = NextPart(CeilDiv(size - at, lanes), kWideVectors);
        const size_t columns = std::min(width * lanes, size - at);
        const bool packed = SetPanel(args, weights, k, range.n_begin + at, columns, panel, tile);
        tile.c = sums + at;
        tile.add = k == block ? nullptr : tile.c;
        if (k == block) {
          (packed ? SelectTile<0>(true, rows, width)
                  : SelectSkinnyTile<T>(true, rows, width, false))(tile);
        } else {
          (packed ? SelectContinuing<float>(rows, width) : SelectContinuing<T>(rows, width))(tile);
        }
        at += columns;
      }
    }
    for (size_t r = 0; r < rows; ++r) {
      const size_t row = range.m_begin + r;
      float* c = args.c + row * args.c_stride + range.n_begin;
      const float* from = sums + r * tile.c_row;
      if (add.data == nullptr) {
        std::copy_n(from, size, c);
        continue;
      }
      Map(d, add.data + row * add.stride + range.n_begin, from, c, size,
          [](DF, VF x, VF sum) HWY_ATTR { return hn::Add(x, sum); });
    }
    add = {args.c, args.c_stride};
  }
}

// More rows: so many steps of all panels of columns of B, one after the other. These are short runs
// of memory far apart, which CPUs do not see coming, so each tile fetches the next one's.
template <typename T>
HWY_INLINE void RunAlongColumns(const MatmulArgs& args, const T* weights, const MatmulRange& range,
                                float* panel) {
  const size_t lanes = hn::Lanes(DF());
  const bool along_k = args.a.col_stride == 1;
  // The widest tile that holds all rows, or as many as any.
  const size_t most =
      range.m_end - range.m_begin <= kTallRows[kWideVectors - 1] ? kWideVectors : kTileVectors;
  Tile tile;
  tile.a_row = args.a.row_stride;
  tile.a_k = args.a.col_stride;
  tile.c_row = args.c_stride;
  Addend add = EpilogueAddend(args);
  for (size_t k = 0; k == 0 || k < args.k; k += kSkinnyStepsK) {
    tile.k = std::min(kSkinnyStepsK, args.k - k);
    tile.add_row = add.stride;
    for (size_t column = range.n_begin; column < range.n_end;) {
      const size_t left = range.n_end - column;
      const size_t width = NextPart(CeilDiv(left, lanes), most);
      const size_t columns = std::min(width * lanes, left);
      const bool packed = SetPanel(args, weights, k, column, columns, panel, tile);
      tile.last = columns % lanes;
      const bool beside = columns < left;
      const size_t next_k = beside ? k : k + kSkinnyStepsK;
      const size_t next_column = beside ? column + columns : range.n_begin;
      const bool fetch_b = along_k && next_k < args.k;
      if (fetch_b) {
        const T* next = weights + next_k * args.b.strided.row_stride + next_column;
        tile.next_b = reinterpret_cast<uintptr_t>(next);
      }
      for (size_t row = range.m_begin; row < range.m_end;) {
        const size_t rows = NextPart(range.m_end - row, kTallRows[width - 1]);
        tile.a = args.a.data + row * args.a.row_stride + k * args.a.col_stride;
        tile.c = args.c + row * args.c_stride + column;
        tile.add = add.data == nullptr ? nullptr : add.data + row * add.stride + column;
        const bool fetch = fetch_b && row == range.m_begin;
        (packed ? SelectTile<0>(along_k, rows, width)
                : SelectSkinnyTile<T>(along_k, rows, width, fetch))(tile);
        row += rows;
      }
      column += columns;
    }
    add = {args.c, args.c_stride};
  }
}

// B row-major [k,n]. Both orders add in the same one.
template <typename T>
HWY_INLINE void RunSkinnyAlongN(const MatmulArgs& args, const T* weights, const MatmulRange& range,
                                float* scratch) {
  const size_t rows = range.m_end - range.m_begin;
  const bool few = std::is_same_v<T, float>
                       ? rows <= kRunRows
                       : rows == 1 && range.n_end - range.n_begin >= kLongHalfRow;
  if (few && args.a.col_stride == 1) {
    RunAlongRows(args, weights, range, scratch, scratch + PanelFloats(kSkinnyStepsK));
  } else {
    RunAlongColumns(args, weights, range, scratch);
  }
}

// Rows of A and of B whose dot products are summed at once: few rows of A by four of B, more by
// three. Each weight is loaded once for as many rows as the registers have sums for, and few rows
// of A are loaded, which together may not fit L1.
inline constexpr size_t kDotRows = kTileRows == 8 ? 4 : 2;
inline constexpr size_t kDotColumns = 4;
inline constexpr size_t kManyDotRows = 2 * kDotRows;
inline constexpr size_t kManyDotColumns = 3;

#define LW_DOT_COLUMNS(COLUMN, r) COLUMN(r, 0) COLUMN(r, 1) COLUMN(r, 2) COLUMN(r, 3)
#define LW_DOT_EACH_ROW(ROW) ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5) ROW(6) ROW(7)

// Keeps compilers from making the load of x a part of every operation that takes it: CPUs start as
// many loads a cycle as multiply-adds, and some of these are for the weights.
template <typename V>
HWY_INLINE void LoadOnce(V& x) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR && (HWY_COMPILER_GCC || HWY_COMPILER_CLANG)
  __asm__("" : "+v"(x.raw));
#else
  (void)x;
#endif
}
HWY_INLINE VF LoadFloats(const float* p) {
  VF x = hn::LoadU(DF(), p);
  LoadOnce(x);
  return x;
}

// Pairs of bf16 as they lie, and the even and odd ones of them as float32: one operation each.
HWY_INLINE VPairs LoadPairs(const BFloat16* p) {
  VPairs pairs = hn::LoadU(DPairs(), reinterpret_cast<const uint32_t*>(p));
  LoadOnce(pairs);
  return pairs;
}
// Where registers are short: loaded again for the other half.
HWY_INLINE VPairs LoadPairsTwice(const BFloat16* p) {
  return hn::LoadU(DPairs(), reinterpret_cast<const uint32_t*>(p));
}
HWY_INLINE VPairs LoadPairsN(const BFloat16* p, size_t n) {
  const hn::Repartition<uint16_t, DF> d16;
  return hn::BitCast(DPairs(), hn::LoadN(d16, reinterpret_cast<const uint16_t*>(p), n));
}
HWY_INLINE VF EvenOf(VPairs pairs) { return hn::BitCast(DF(), hn::ShiftLeft<16>(pairs)); }
HWY_INLINE VF OddOf(VPairs pairs) {
  return hn::BitCast(DF(), hn::And(pairs, hn::Set(DPairs(), 0xFFFF0000U)));
}

HWY_INLINE VF AddProducts(VF x, VF w, VF sum) { return hn::MulAdd(x, w, sum); }
HWY_INLINE VF AddProducts(VPairs x, VPairs w, VF sum) { return DotPairs(x, w, sum); }

// out[r * 4 + j] = sum_k x[r, k] * w[j, k] for kRows rows and kColumns columns, whose addresses are
// in `w`. Fetches kFetch rows of `ahead` meanwhile. Against bf16 weights, rows of floats come from
// SplitPairs, rows of bf16 have zeros to the end of a vector.
template <typename X, typename T, size_t kRows, size_t kColumns, size_t kFetch>
void DotTile(const X* x, size_t x_row, const T* const* w, const T* ahead, size_t ahead_row,
             size_t k, float* HWY_RESTRICT out) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  // Two pointers and a stride reach eight rows; a pointer for each is more than there are
  // registers.
  const X* low = x;
  const X* high = x + (kRows > kLowRows ? kLowRows * x_row : 0);
  size_t x_row3 = 3 * x_row;
  const T* HWY_RESTRICT w0 = w[0];
  const T* HWY_RESTRICT w1 = w[1];
  const T* HWY_RESTRICT w2 = w[2];
  const T* HWY_RESTRICT w3 = kColumns > 3 ? w[3] : w2;
  static_assert(kColumns == 3 || kColumns == 4);
#define LW_DOT_DECLARE_ROW(r) \
  VF s##r##0 = hn::Zero(d), s##r##1 = s##r##0, s##r##2 = s##r##0, s##r##3 = s##r##0;
  LW_DOT_EACH_ROW(LW_DOT_DECLARE_ROW)
#undef LW_DOT_DECLARE_ROW
#define LW_DOT_FMA(r, j) \
  if constexpr (kColumns > j) s##r##j = AddProducts(x##r, v##j, s##r##j);
#define LW_DOT_X(r)        \
  (kRows <= kLowRows       \
       ? x + r * x_row + i \
       : (r < kLowRows ? low : high) + (r % kLowRows == 3 ? x_row3 : r % kLowRows * x_row))
#define LW_DOT_ROW(r, load, at)               \
  if constexpr (kRows > r) {                  \
    const auto x##r = load(LW_DOT_X(r) + at); \
    LW_DOT_COLUMNS(LW_DOT_FMA, r)             \
  }
#define LW_DOT_TWO_ROWS(a, b, load, at) LW_DOT_ROW(a, load, at) LW_DOT_ROW(b, load, at)
#define LW_DOT_FOUR_ROWS(a, b, c, e, load, at) \
  LW_DOT_TWO_ROWS(a, b, load, at) LW_DOT_TWO_ROWS(c, e, load, at)
#define LW_DOT_ROWS(load, at) \
  LW_DOT_FOUR_ROWS(0, 1, 2, 3, load, at) LW_DOT_FOUR_ROWS(4, 5, 6, 7, load, at)
#define LW_DOT_STEP(load, load_x)                                     \
  const auto v0 = load(w0 + i), v1 = load(w1 + i), v2 = load(w2 + i); \
  auto v3 = v2;                                                       \
  if constexpr (kColumns > 3) v3 = load(w3 + i);                      \
  (void)v3;                                                           \
  LW_DOT_ROWS(load_x, 0)
#define LW_DOT_SPLIT_STEP(load, load_x)                                          \
  const VPairs p0 = load(w0 + i), p1 = load(w1 + i), p2 = load(w2 + i);          \
  VPairs p3 = p2;                                                                \
  if constexpr (kColumns > 3) p3 = load(w3 + i);                                 \
  {                                                                              \
    const VF v0 = EvenOf(p0), v1 = EvenOf(p1), v2 = EvenOf(p2), v3 = EvenOf(p3); \
    LW_DOT_ROWS(load_x, 0)                                                       \
  }                                                                              \
  {                                                                              \
    const VF v0 = OddOf(p0), v1 = OddOf(p1), v2 = OddOf(p2), v3 = OddOf(p3);     \
    LW_DOT_ROWS(load_x, lanes)                                                   \
  }
#define LW_DOT_LOAD_N(p) LoadWideN(p, k - i)
#define LW_DOT_LOAD_PAIRS_N(p) LoadPairsN(p, k - i)
  constexpr bool kPairs = std::is_same_v<T, BFloat16>;
  constexpr bool kRounded = std::is_same_v<X, BFloat16>;
  const size_t step = kPairs ? 2 * lanes : lanes;
  size_t i = 0;
  for (; i + step <= k; i += step, low += step, high += step) {
    if constexpr (kRows > kLowRows) {
      KeepInRegister(x_row);
      KeepInRegister(x_row3);
    }
    PrefetchToL2(ahead + i);
    if constexpr (kFetch > 1) PrefetchToL2(ahead + ahead_row + i);
    if constexpr (kFetch > 2) PrefetchToL2(ahead + 2 * ahead_row + i);
    if constexpr (kFetch > 3) PrefetchToL2(ahead + 3 * ahead_row + i);
    if constexpr (kRounded) {
      LW_DOT_STEP(LoadPairs, LoadPairs)
    } else if constexpr (kPairs && kRows > kLowRows) {
      LW_DOT_SPLIT_STEP(LoadPairsTwice, LoadFloats)
    } else if constexpr (kPairs) {
      LW_DOT_SPLIT_STEP(LoadPairs, LoadWide)
    } else {
      LW_DOT_STEP(LoadFloats, LoadFloats)
    }
  }
  if (i < k) {
    if constexpr (kRounded) {
      LW_DOT_STEP(LW_DOT_LOAD_PAIRS_N, LoadPairs)
    } else if constexpr (kPairs) {
      LW_DOT_SPLIT_STEP(LW_DOT_LOAD_PAIRS_N, LoadWide)
    } else {
      LW_DOT_STEP(LW_DOT_LOAD_N, LW_DOT_LOAD_N)
    }
  }
#define LW_DOT_STORE(r) \
  if constexpr (kRows > r) SumLanes(d, s##r##0, s##r##1, s##r##2, s##r##3, out + r * kDotColumns);
  LW_DOT_EACH_ROW(LW_DOT_STORE)
#undef LW_DOT_STORE
#undef LW_DOT_LOAD_PAIRS_N
#undef LW_DOT_LOAD_N
#undef LW_DOT_SPLIT_STEP
#undef LW_DOT_STEP
#undef LW_DOT_ROWS
#undef LW_DOT_FOUR_ROWS
#undef LW_DOT_TWO_ROWS
#undef LW_DOT_ROW
#undef LW_DOT_X
#undef LW_DOT_FMA
}

#undef LW_DOT_EACH_ROW
#undef LW_DOT_COLUMNS

template <typename X, typename T>
using DotFunction = void (*)(const X*, size_t, const T* const*, const T*, size_t, size_t, float*);

// For every number of rows from 1: tiles of `rows` by kColumns that fetch kFetch rows.
template <typename X, typename T, size_t kColumns, size_t kFetch, size_t... kIndex>
constexpr std::array<DotFunction<X, T>, sizeof...(kIndex)> FewRowTiles(
    std::index_sequence<kIndex...>) {
  return {&DotTile<X, T, kIndex + 1, kColumns, kFetch>...};
}

// `fetch`: 1, 2, or all the columns.
template <typename X, typename T, size_t kMostRows, size_t kColumns>
HWY_INLINE DotFunction<X, T> SelectDot(size_t rows, size_t fetch) {
  constexpr auto kRows = std::make_index_sequence<kMostRows>();
  static constexpr std::array<DotFunction<X, T>, kMostRows> kTable[3] = {
      FewRowTiles<X, T, kColumns, 1>(kRows), FewRowTiles<X, T, kColumns, 2>(kRows),
      FewRowTiles<X, T, kColumns, kColumns>(kRows)};
  return kTable[fetch < 3 ? fetch - 1 : 2][rows - 1];
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

// B row-major [n,k]: dot products of the rows of A with kColumns rows of B at a time, one from each
// such part of the range: few streams, each from end to end, are what the prefetchers of CPUs like.
template <size_t kMostRows, size_t kColumns, typename X, typename T>
HWY_INLINE void RunDots(const MatmulArgs& args, const T* weights, const MatmulRange& range,
                        const X* a, size_t a_row) {
  const Addend add = EpilogueAddend(args);
  const size_t b_n = args.b.strided.col_stride;
  // The passes over the same columns share out the rows that are fetched.
  const size_t passes = CeilDiv(range.m_end - range.m_begin, kMostRows);
  const size_t fetch = passes == 1 ? kColumns : passes == 2 ? 2 : 1;
  // The last part may be shorter.
  const size_t part = CeilDiv(range.n_end - range.n_begin, kColumns);
  for (size_t i = 0; i < part; ++i) {
    const size_t first = range.n_begin + i;
    const size_t columns = std::min(kColumns, CeilDiv(range.n_end - first, part));
    const T* w[kColumns];
    for (size_t j = 0; j < kColumns; ++j) {
      w[j] = weights + (first + std::min(j, columns - 1) * part) * b_n;
    }
    for (size_t row = range.m_begin; row < range.m_end; row += kMostRows) {
      const size_t rows = std::min(kMostRows, range.m_end - row);
      // With more passes than columns the last ones ask for what has been fetched.
      const size_t fetched = std::min((row - range.m_begin) / kMostRows * fetch, kColumns - 1);
      const X* x = a + (row - range.m_begin) * a_row;
      const T* ahead = w[0] + (kAheadRows<T> + fetched * part) * b_n;
      float sums[kMostRows * kDotColumns];
      SelectDot<X, T, kMostRows, kColumns>(rows, std::min(fetch, kColumns - fetched))(
          x, a_row, w, ahead, part * b_n, args.k, sums);
      for (size_t r = 0; r < rows; ++r) {
        float* c = args.c + (row + r) * args.c_stride + first;
        const float* addend =
            add.data == nullptr ? nullptr : add.data + (row + r) * add.stride + first;
        for (size_t j = 0; j < columns; ++j) {
          const float sum = sums[r * kDotColumns + j];
          c[j * part] = addend == nullptr ? sum : addend[j * part] + sum;
        }
      }
    }
  }
}

// `a`: the rows of the range, a_row elements from one to the next.
template <typename X, typename T>
HWY_INLINE void RunSkinnyAlongK(const MatmulArgs& args, const T* weights, const MatmulRange& range,
                                const X* a, size_t a_row) {
  if (range.m_end - range.m_begin <= kDotRows) {
    RunDots<kDotRows, kDotColumns>(args, weights, range, a, a_row);
  } else {
    RunDots<kManyDotRows, kManyDotColumns>(args, weights, range, a, a_row);
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

// Of these, the products that dot products of bf16 compute, where they are fast.
HWY_INLINE bool IsSkinnyDot(const MatmulArgs& args) {
  return IsSkinny(args) && args.b.bf16 != nullptr && args.b.strided.col_stride != 1;
}

// For any range of a product with these sizes, if it takes one of these paths.
HWY_INLINE size_t SkinnyScratchBytes(size_t m, size_t n, size_t k) {
  const size_t rows = std::min(m, kMatmulSkinnyRows);
  const size_t sums = kRunRows * CeilDiv(n, hn::Lanes(DF())) * hn::Lanes(DF());
  return (std::max(PanelFloats(kSkinnyStepsK) + sums, rows * SplitSteps(k)) + 16) * sizeof(float);
}

HWY_INLINE void RunSkinny(const MatmulArgs& args, const MatmulRange& range, void* scratch) {
  const bool along_n = args.b.strided.col_stride == 1;
  const BFloat16* half = args.b.bf16;
  const float* rows = args.a.data + range.m_begin * args.a.row_stride;
  float* aligned = AlignUp(scratch);
  if (along_n && half != nullptr) {
    RunSkinnyAlongN(args, half, range, aligned);
  } else if (along_n) {
    RunSkinnyAlongN(args, args.b.strided.data, range, aligned);
  } else if (half != nullptr) {
    SplitPairs(args, range, aligned);
    RunSkinnyAlongK(args, half, range, aligned, SplitSteps(args.k));
  } else {
    RunSkinnyAlongK(args, args.b.strided.data, range, rows, args.a.row_stride);
  }
}

}  // namespace matmul
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
