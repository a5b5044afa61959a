// What the attention kernels share: products of small tiles, packing, 2^x, the online softmax.
//
// A tile of scores lies with keys in rows and queries in lanes (S^T), so that maxima and sums over
// keys are vertical and each query's mask, maximum and sum are lanes of one vector.
#if defined(LANEWISE_KERNELS_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_ATTENTION_INL_H_
#undef LANEWISE_KERNELS_ATTENTION_INL_H_
#else
#define LANEWISE_KERNELS_ATTENTION_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "hwy/highway.h"
#include "kernels/bfloat16-inl.h"
#include "kernels/view.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace attention {

namespace hn = hwy::HWY_NAMESPACE;

// Queries and keys in a tile; also the row stride of tiles of scores.
inline constexpr size_t kTile = 64;
using F32 = hn::CappedTag<float, kTile>;
using V32 = hn::Vec<F32>;

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2 = 0.693147180559945309f;

// Rows and vectors of the products' register tile: accumulators, one row of B and one broadcast fit
// in 16 registers on SSE and AVX2, 32 elsewhere.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SSSE3 || \
    HWY_TARGET == HWY_SSE2
inline constexpr size_t kRows = 4;
#else
inline constexpr size_t kRows = 8;
#endif
inline constexpr size_t kVectors = 3;
// Buffers have this many rows at a time, whatever kRows is.
inline constexpr size_t kRowBlock = 8;

HWY_INLINE size_t RoundUp(size_t n, size_t step) { return (n + step - 1) / step * step; }

// Hands out pieces of the caller's scratch, each on a cache line.
class Scratch {
 public:
  explicit Scratch(std::span<float> memory) : next_(memory.data()) {
    const size_t misaligned = reinterpret_cast<uintptr_t>(next_) % 64 / sizeof(float);
    if (misaligned != 0) next_ += 16 - misaligned;
  }
  float* Take(size_t floats) {
    float* const piece = next_;
    next_ += RoundUp(floats, 16);
    return piece;
  }

 private:
  float* next_;
};

// 2^x for x <= 100, within 1 ULP; below 2^-126 the result is 0. NaN gives NaN, -inf gives 0.
HWY_INLINE V32 Exp2(F32 d, V32 x) {
  const hn::RebindToUnsigned<F32> du;
  // Adding this rounds to an integer and leaves it, with the exponent's bias, in the low bits.
  const V32 magic = hn::Set(d, 12582912.0f + 127.0f);
  const V32 t = hn::Add(x, magic);
  const V32 r = hn::Sub(x, hn::Sub(t, magic));
  // A minimax fit of 2^r - 1 for |r| <= 1/2 (2e-9 relative to 2^r).
  V32 p = hn::MulAdd(hn::Set(d, 1.53533621e-4f), r, hn::Set(d, 1.33988746e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 9.61843736e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.55033247e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.240226479f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.693147203f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const V32 y = hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, t))));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0f)), y);
}

// C[kRows, kVecs vectors] (+)= A[kRows, depth] * B[depth, kVecs vectors]. A(m, k) is
// a[k * a_stride + m] with kUnitRows, else a[m * a_stride + k]; it is broadcast, B is loaded.
template <size_t kVecs, bool kUnitRows>
HWY_INLINE void ProductTile(F32 d, const float* HWY_RESTRICT a, size_t a_stride,
                            const float* HWY_RESTRICT b, size_t b_stride, size_t depth,
                            float* HWY_RESTRICT c, size_t c_stride, bool accumulate) {
  const size_t lanes = hn::Lanes(d);
  const size_t row_step = kUnitRows ? 1 : a_stride;
  const size_t depth_step = kUnitRows ? a_stride : 1;
  const V32 zero = hn::Zero(d);
  V32 c00 = zero, c01 = zero, c02 = zero, c10 = zero, c11 = zero, c12 = zero;
  V32 c20 = zero, c21 = zero, c22 = zero, c30 = zero, c31 = zero, c32 = zero;
  V32 c40 = zero, c41 = zero, c42 = zero, c50 = zero, c51 = zero, c52 = zero;
  V32 c60 = zero, c61 = zero, c62 = zero, c70 = zero, c71 = zero, c72 = zero;
// One row of the register tile. Macros, because vectors cannot be array elements on SVE.
#define LANEWISE_LOAD_ROW(m)                                                       \
  if constexpr (kRows > m) {                                                       \
    c##m##0 = hn::LoadU(d, c + m * c_stride);                                      \
    if constexpr (kVecs > 1) c##m##1 = hn::LoadU(d, c + m * c_stride + lanes);     \
    if constexpr (kVecs > 2) c##m##2 = hn::LoadU(d, c + m * c_stride + 2 * lanes); \
  }
#define LANEWISE_STORE_ROW(m)                                                      \
  if constexpr (kRows > m) {                                                       \
    hn::StoreU(c##m##0, d, c + m * c_stride);                                      \
    if constexpr (kVecs > 1) hn::StoreU(c##m##1, d, c + m * c_stride + lanes);     \
    if constexpr (kVecs > 2) hn::StoreU(c##m##2, d, c + m * c_stride + 2 * lanes); \
  }
#define LANEWISE_MULTIPLY_ROW(m)                                    \
  if constexpr (kRows > m) {                                        \
    const V32 am = hn::Set(d, a[m * row_step]);                     \
    c##m##0 = hn::MulAdd(am, b0, c##m##0);                          \
    if constexpr (kVecs > 1) c##m##1 = hn::MulAdd(am, b1, c##m##1); \
    if constexpr (kVecs > 2) c##m##2 = hn::MulAdd(am, b2, c##m##2); \
  }
#define LANEWISE_ALL_ROWS(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
  if (accumulate) {
    LANEWISE_ALL_ROWS(LANEWISE_LOAD_ROW)
  }
  for (size_t k = 0; k < depth; ++k) {
    const V32 b0 = hn::LoadU(d, b);
    V32 b1 = zero, b2 = zero;
    if constexpr (kVecs > 1) b1 = hn::LoadU(d, b + lanes);
    if constexpr (kVecs > 2) b2 = hn::LoadU(d, b + 2 * lanes);
    (void)b1, (void)b2;
    LANEWISE_ALL_ROWS(LANEWISE_MULTIPLY_ROW)
    a += depth_step;
    b += b_stride;
  }
  LANEWISE_ALL_ROWS(LANEWISE_STORE_ROW)
#undef LANEWISE_LOAD_ROW
#undef LANEWISE_STORE_ROW
#undef LANEWISE_MULTIPLY_ROW
#undef LANEWISE_ALL_ROWS
}

// One block of kRowBlock rows of a product, over `vectors` vectors of columns in near-equal groups.
template <bool kUnitRows>
HWY_INLINE void ProductRows(F32 d, const float* a, size_t a_stride, const float* b, size_t b_stride,
                            size_t depth, size_t vectors, float* c, size_t c_stride,
                            bool accumulate) {
  const size_t lanes = hn::Lanes(d);
  for (size_t rows = 0; rows < kRowBlock; rows += kRows) {
    size_t width = 0;
    for (size_t done = 0; done < vectors; done += width) {
      const size_t rest = vectors - done;
      width = rest == 4 ? 2 : std::min(rest, kVectors);  // near-equal: never 3 and 1
      const float* const bg = b + done * lanes;
      float* const cg = c + done * lanes;
      if (width == 3) {
        ProductTile<3, kUnitRows>(d, a, a_stride, bg, b_stride, depth, cg, c_stride, accumulate);
      } else if (width == 2) {
        ProductTile<2, kUnitRows>(d, a, a_stride, bg, b_stride, depth, cg, c_stride, accumulate);
      } else {
        ProductTile<1, kUnitRows>(d, a, a_stride, bg, b_stride, depth, cg, c_stride, accumulate);
      }
    }
    a += kRows * (kUnitRows ? 1 : a_stride);
    c += kRows * c_stride;
  }
}

// A vector of float32 or bf16, or its first n lanes.
HWY_INLINE V32 LoadWide(F32 d, const float* p) { return hn::LoadU(d, p); }
HWY_INLINE V32 LoadWide(F32 d, const BFloat16* p) { return bf16::Load(d, p); }
HWY_INLINE V32 LoadWideN(F32 d, const float* p, size_t n) { return hn::LoadN(d, p, n); }
HWY_INLINE V32 LoadWideN(F32 d, const BFloat16* p, size_t n) { return bf16::LoadN(d, p, n); }

// to[r, 0:stride] = scale * from[r, :] and zeros; zero rows up to the next multiple of kRowBlock.
template <typename T>
HWY_INLINE void PackRows(F32 d, Mat<const T> from, float scale, float* HWY_RESTRICT to,
                         size_t stride) {
  const size_t lanes = hn::Lanes(d);
  const V32 factor = hn::Set(d, scale);
  const size_t whole = from.cols - from.cols % lanes;
  for (size_t r = 0; r < from.rows; ++r) {
    const T* HWY_RESTRICT row = from.Row(r);
    float* HWY_RESTRICT out = to + r * stride;
    for (size_t c = 0; c < whole; c += lanes) {
      hn::StoreU(hn::Mul(LoadWide(d, row + c), factor), d, out + c);
    }
    if (whole != from.cols) {
      const V32 last = LoadWideN(d, row + whole, from.cols - whole);
      hn::StoreU(hn::Mul(last, factor), d, out + whole);
    }
  }
  const size_t end = RoundUp(from.rows, kRowBlock);
  std::fill(to + from.rows * stride, to + end * stride, 0.0f);
}

// Rows as products read them: in whole vectors, in blocks of kRowBlock rows, or both.
enum class ReadAs { kWholeVectors, kWholeBlocks, kBoth };
struct PackedRows {
  const float* data;
  size_t stride;
};

// `from` itself where its shape allows such reads and `copy` does not ask for a copy in `buffer`.
HWY_INLINE PackedRows RowsOrCopy(F32 d, ReadAs read, Mat<const float> from, bool copy,
                                 float* buffer, size_t stride) {
  const bool rows = read == ReadAs::kWholeVectors || from.rows % kRowBlock == 0;
  const bool vectors = read == ReadAs::kWholeBlocks || from.cols % hn::Lanes(d) == 0;
  if (!copy && rows && vectors) return {from.data, from.stride};
  PackRows(d, from, 1.0f, buffer, stride);
  return {buffer, stride};
}

// to[c, r] = scale * from[r, c] with row stride kTile and zeros in the columns up to kTile. In
// blocks of 4 x 4: wider ones are limited by memory all the same.
HWY_INLINE void PackTransposed(Mat<const float> from, float scale, float* HWY_RESTRICT to) {
  const hn::FixedTag<float, 4> d;
  const hn::RepartitionToWide<decltype(d)> d2;
  const auto factor = hn::Set(d, scale);
  const size_t whole_rows = from.rows - from.rows % 4;
  const size_t whole_cols = from.cols - from.cols % 4;
  for (size_t r = 0; r < whole_rows; r += 4) {
    for (size_t c = 0; c < whole_cols; c += 4) {
      const auto r0 = hn::Mul(hn::LoadU(d, from.Row(r) + c), factor);
      const auto r1 = hn::Mul(hn::LoadU(d, from.Row(r + 1) + c), factor);
      const auto r2 = hn::Mul(hn::LoadU(d, from.Row(r + 2) + c), factor);
      const auto r3 = hn::Mul(hn::LoadU(d, from.Row(r + 3) + c), factor);
      const auto low01 = hn::BitCast(d2, hn::InterleaveLower(d, r0, r1));
      const auto low23 = hn::BitCast(d2, hn::InterleaveLower(d, r2, r3));
      const auto high01 = hn::BitCast(d2, hn::InterleaveUpper(d, r0, r1));
      const auto high23 = hn::BitCast(d2, hn::InterleaveUpper(d, r2, r3));
      float* const out = to + c * kTile + r;
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, low01, low23)), d, out);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, low01, low23)), d, out + kTile);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, high01, high23)), d, out + 2 * kTile);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, high01, high23)), d, out + 3 * kTile);
    }
  }
  for (size_t r = 0; r < from.rows; ++r) {
    for (size_t c = r < whole_rows ? whole_cols : 0; c < from.cols; ++c) {
      to[c * kTile + r] = from.Row(r)[c] * scale;
    }
  }
  for (size_t c = 0; c < from.cols && from.rows < kTile; ++c) {
    std::fill(to + c * kTile + from.rows, to + (c + 1) * kTile, 0.0f);
  }
}

// Which part of a tile of scores is needed. Lane i sees row j of the tile if
// j < visible + i / share: `share` neighboring lanes are heads of the same token, and `visible`
// (may be negative) is the number of the tile's keys that the first token sees.
struct Extent {
  size_t keys;     // rows of the tile that exist
  size_t queries;  // lanes that exist
  ptrdiff_t visible;
  ptrdiff_t share = 1;

  ptrdiff_t Seen(size_t lane) const {
    const auto i = static_cast<ptrdiff_t>(lane);
    return visible + (share == 1 ? i : i / share);
  }
  // Rows to compute for the lanes before `end`, a multiple of kRowBlock.
  size_t RowsFor(size_t end) const {
    const ptrdiff_t seen = Seen(std::min(end, queries) - 1);
    return seen <= 0 ? 0 : RoundUp(std::min(keys, static_cast<size_t>(seen)), kRowBlock);
  }
  // Rows that products over blocks of kRowBlock lanes may read of the lanes before `end`.
  size_t RowsRead(size_t end) const { return RowsFor(RoundUp(end, kRowBlock)); }
  // The first row that some lane from `lane` on does not see. Rows of padding are seen by none.
  size_t MaskFrom(size_t lane) const {
    const ptrdiff_t seen = Seen(lane);
    return seen <= 0 ? 0 : std::min(keys, static_cast<size_t>(seen));
  }
  // The first lane that sees row j; kTile or more if none does.
  size_t FirstLane(size_t j) const {
    if (j >= keys) return kTile;
    const ptrdiff_t lane = (static_cast<ptrdiff_t>(j) + 1 - visible) * share;
    return lane <= 0 ? 0 : static_cast<size_t>(lane);
  }
};

// scores[j, i] = sum_c k[j, c] * qt[c, i] for the part of the tile that is needed, in whole vectors
// and blocks of rows; k [keys, head_dim] with row stride k_stride, qt [head_dim, kTile].
HWY_INLINE void Scores(F32 d, const Extent& extent, const float* k, size_t k_stride,
                       size_t head_dim, const float* qt, float* scores) {
  const size_t lanes = hn::Lanes(d);
  const size_t end = RoundUp(extent.queries, lanes);
  for (size_t j = 0; j < extent.keys; j += kRowBlock) {
    const size_t begin = extent.FirstLane(j) / lanes * lanes;
    if (begin >= end) break;
    ProductRows<false>(d, k + j * k_stride, k_stride, qt + begin, kTile, head_dim,
                       (end - begin) / lanes, scores + j * kTile + begin, kTile, false);
  }
}

// x with `other` in the lanes that do not see row j; lane0 is the vector's first lane.
HWY_INLINE V32 Masked(F32 d, const Extent& extent, size_t j, size_t lane0, V32 x, V32 other) {
  const auto first = static_cast<float>(extent.FirstLane(j)) - static_cast<float>(lane0);
  return hn::IfThenElse(hn::Lt(hn::Iota(d, 0), hn::Set(d, first)), other, x);
}

HWY_INLINE float Scale(size_t head_dim) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
}

// The state of one tile of queries between tiles of keys: base-2 maxima and sums, outputs not yet
// divided by their sums.
struct OnlineSoftmax {
  float* max;         // [kTile]
  float* sum;         // [kTile]
  float* correction;  // [kTile], factor for what has been summed so far
  float* out;         // [kTile, stride]
  size_t stride;
};

// Turns scores into exp2(score - max) with the running maximum, updates max and sum, and gives the
// correction. Unseen rows that products read are zero afterwards. True if a correction is not 1.
HWY_INLINE bool SoftmaxTile(F32 d, const Extent& extent, float* HWY_RESTRICT scores,
                            const OnlineSoftmax& state) {
  const size_t lanes = hn::Lanes(d);
  const V32 minus_infinity = hn::Set(d, -std::numeric_limits<float>::infinity());
  const V32 one = hn::Set(d, 1.0f);
  bool corrected = false;
  for (size_t lane = 0; lane < extent.queries; lane += lanes) {
    const size_t rows = extent.RowsFor(lane + lanes);
    const size_t mask_from = extent.MaskFrom(lane);
    float* const column = scores + lane;
    const V32 old_max = hn::LoadU(d, state.max + lane);
    V32 max = old_max;
    size_t j = 0;
    for (; j < std::min(rows, mask_from); ++j) {
      max = hn::Max(max, hn::LoadU(d, column + j * kTile));
    }
    for (; j < rows; ++j) {
      const V32 s = Masked(d, extent, j, lane, hn::LoadU(d, column + j * kTile), minus_infinity);
      hn::StoreU(s, d, column + j * kTile);
      max = hn::Max(max, s);
    }
    V32 sum = hn::Zero(d);
    for (j = 0; j < rows; ++j) {
      const V32 p = Exp2(d, hn::Sub(hn::LoadU(d, column + j * kTile), max));
      hn::StoreU(p, d, column + j * kTile);
      sum = hn::Add(sum, p);
    }
    const size_t rows_read = extent.RowsRead(lane + lanes);
    for (; j < rows_read; ++j) hn::StoreU(hn::Zero(d), d, column + j * kTile);
    const V32 correction = Exp2(d, hn::Sub(old_max, max));
    corrected = corrected || !hn::AllTrue(d, hn::Eq(correction, one));
    hn::StoreU(max, d, state.max + lane);
    hn::StoreU(hn::MulAdd(hn::LoadU(d, state.sum + lane), correction, sum), d, state.sum + lane);
    hn::StoreU(correction, d, state.correction + lane);
  }
  return corrected;
}

// out[i, :] (+)= sum_j p[j, i] * v[j, :], after multiplying out[i, :] by the correction.
HWY_INLINE void AddValues(F32 d, const Extent& extent, const float* p, const PackedRows& v,
                          bool first, bool corrected, const OnlineSoftmax& state) {
  const size_t lanes = hn::Lanes(d);
  if (!first && corrected) {
    for (size_t i = 0; i < extent.queries; ++i) {
      const V32 factor = hn::Set(d, state.correction[i]);
      float* const row = state.out + i * state.stride;
      for (size_t c = 0; c < state.stride; c += lanes) {
        hn::StoreU(hn::Mul(hn::LoadU(d, row + c), factor), d, row + c);
      }
    }
  }
  for (size_t i = 0; i < extent.queries; i += kRowBlock) {
    const size_t depth = std::min(extent.keys, extent.RowsFor(i + kRowBlock));
    if (depth == 0 && !first) continue;
    ProductRows<true>(d, p + i, kTile, v.data, v.stride, depth, state.stride / lanes,
                      state.out + i * state.stride, state.stride, !first);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace attention
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
