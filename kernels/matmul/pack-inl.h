// Copies operands into the order in which the tile reads them. A packed panel of B holds, for each
// k, the columns of one tile (whole vectors, zeros beyond the last column); a panel of A holds for
// each k kPanelRows rows.
#if defined(LANEWISE_KERNELS_MATMUL_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_MATMUL_PACK_INL_H_
#undef LANEWISE_KERNELS_MATMUL_PACK_INL_H_
#else
#define LANEWISE_KERNELS_MATMUL_PACK_INL_H_
#endif

#include <algorithm>
#include <cstddef>

#include "hwy/highway.h"
#include "kernels/matmul.h"
#include "kernels/matmul/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

// Rows stored per k in a panel of A: enough for a tile, and a whole number of cache line parts.
inline constexpr size_t kPanelRows = 8;

// Vectors of the next panel when `left` vectors are left: full tiles, and two of two rather than
// a full one and one of a single vector.
HWY_INLINE size_t PanelVectors(size_t left) {
  if (left <= kTileVectors) return left;
  return kTileVectors == 3 && left == 4 ? 2 : kTileVectors;
}

// Row tiles of near-equal height instead of a small remainder.
struct RowTiles {
  size_t count, height, taller;  // the first `taller` tiles have one row more than `height`

  explicit RowTiles(size_t rows)
      : count((rows + kTileRows - 1) / kTileRows),
        height(count == 0 ? 0 : rows / count),
        taller(count == 0 ? 0 : rows % count) {}
  size_t Begin(size_t i) const { return i * height + std::min(i, taller); }
  size_t Rows(size_t i) const { return height + (i < taller ? 1 : 0); }
};

// Panels of A from rows that lie side by side; tile i goes to out + i * k * kPanelRows.
HWY_INLINE void PackAAlongM(const float* a, size_t a_k, size_t rows, size_t k,
                            float* HWY_RESTRICT out) {
  const hn::CappedTag<float, kPanelRows> d;
  const size_t lanes = hn::Lanes(d);
  const RowTiles tiles(rows);
  constexpr size_t kGroup = 8;  // tiles per sweep over k: whole cache lines, few write streams
  for (size_t first = 0; first < tiles.count; first += kGroup) {
    const size_t end = std::min(first + kGroup, tiles.count);
    size_t whole = first;  // tiles whose kPanelRows floats are all inside the operand
    while (whole < end && tiles.Begin(whole) + kPanelRows <= rows) ++whole;
    for (size_t kk = 0; kk < k; ++kk) {
      const float* row = a + kk * a_k;
      float* to = out + (first * k + kk) * kPanelRows;
      size_t i = first;
      for (; i < whole; ++i, to += k * kPanelRows) {
        const float* from = row + tiles.Begin(i);
        for (size_t r = 0; r < kPanelRows; r += lanes) {
          hn::StoreU(hn::LoadU(d, from + r), d, to + r);
        }
      }
      for (; i < end; ++i, to += k * kPanelRows) {
        for (size_t r = 0; r < tiles.Rows(i); ++r) to[r] = row[tiles.Begin(i) + r];
      }
    }
  }
}

// Any strides.
HWY_INLINE void PackAStrided(const float* a, size_t a_row, size_t a_k, size_t rows, size_t k,
                             float* HWY_RESTRICT out) {
  const RowTiles tiles(rows);
  for (size_t i = 0; i < tiles.count; ++i) {
    for (size_t kk = 0; kk < k; ++kk) {
      for (size_t r = 0; r < tiles.Rows(i); ++r) {
        out[(i * k + kk) * kPanelRows + r] = a[(tiles.Begin(i) + r) * a_row + kk * a_k];
      }
    }
  }
}

// Panels of B whose columns lie side by side (a row-major [k,n] matrix), row after row.
HWY_INLINE void PackBAlongN(const float* b, size_t b_k, size_t n, size_t k,
                            float* HWY_RESTRICT out) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  const size_t vectors = (n + lanes - 1) / lanes;
  const size_t last = n % lanes;
  for (size_t kk = 0; kk < k; ++kk) {
    const float* from = b + kk * b_k;
    float* panel = out;
    for (size_t v = 0; v < vectors;) {
      const size_t width = PanelVectors(vectors - v);
      float* to = panel + kk * width * lanes;
      for (size_t i = 0; i < width; ++i, ++v) {
        const bool partial = last != 0 && v + 1 == vectors;
        const VF x = HWY_UNLIKELY(partial) ? hn::LoadN(d, from + v * lanes, last)
                                           : hn::LoadU(d, from + v * lanes);
        hn::StoreU(x, d, to + i * lanes);
      }
      panel += k * width * lanes;
    }
  }
}

#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
// Four k of every fourth row, one 128-bit block each, as one vector.
HWY_INLINE VF LoadBlocks(const float* const* rows, size_t k) {
#if HWY_MAX_BYTES == 16
  return hn::LoadU(DF(), rows[0] + k);
#else
  const hn::FixedTag<float, 4> d4;
  const hn::FixedTag<float, 8> d8;
  const auto low = hn::Combine(d8, hn::LoadU(d4, rows[4] + k), hn::LoadU(d4, rows[0] + k));
#if HWY_MAX_BYTES == 32
  return low;
#else
  const auto high = hn::Combine(d8, hn::LoadU(d4, rows[12] + k), hn::LoadU(d4, rows[8] + k));
  return hn::Combine(hn::FixedTag<float, 16>(), high, low);
#endif
#endif
}

// Transposes four k of one vector of rows: out[k * stride + row].
HWY_INLINE void TransposeFour(const float* const* rows, size_t k, float* HWY_RESTRICT out,
                              size_t stride) {
  const DF d;
  const hn::RepartitionToWide<DF> dw;
  const VF r0 = LoadBlocks(rows, k);
  const VF r1 = LoadBlocks(rows + 1, k);
  const VF r2 = LoadBlocks(rows + 2, k);
  const VF r3 = LoadBlocks(rows + 3, k);
  const auto lower01 = hn::BitCast(dw, hn::InterleaveLower(d, r0, r1));
  const auto lower23 = hn::BitCast(dw, hn::InterleaveLower(d, r2, r3));
  const auto upper01 = hn::BitCast(dw, hn::InterleaveUpper(d, r0, r1));
  const auto upper23 = hn::BitCast(dw, hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dw, lower01, lower23)), d, out);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dw, lower01, lower23)), d, out + stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dw, upper01, upper23)), d, out + 2 * stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dw, upper01, upper23)), d, out + 3 * stride);
}
#endif

// One vector of columns of a panel, each column contiguous in k.
HWY_INLINE void PackBColumns(const float* b, size_t b_n, size_t columns, size_t k,
                             float* HWY_RESTRICT out, size_t stride) {
  size_t kk = 0;
#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
  constexpr size_t kLanes = hn::MaxLanes(DF());
  const float* rows[kLanes];
  for (size_t i = 0; i < kLanes; ++i) rows[i] = b + std::min(i, columns - 1) * b_n;
  for (; kk + 4 <= k; kk += 4) TransposeFour(rows, kk, out + kk * stride, stride);
#endif
  const size_t lanes = hn::Lanes(DF());
  for (; kk < k; ++kk) {
    for (size_t i = 0; i < lanes; ++i) {
      out[kk * stride + i] = b[std::min(i, columns - 1) * b_n + kk];
    }
  }
}

// Panels of B whose columns are contiguous in k (a row-major [n,k] matrix): a transpose.
HWY_INLINE void PackBAlongK(const float* b, size_t b_n, size_t n, size_t k,
                            float* HWY_RESTRICT out) {
  const size_t lanes = hn::Lanes(DF());
  const size_t vectors = (n + lanes - 1) / lanes;
  for (size_t v = 0; v < vectors;) {
    const size_t width = PanelVectors(vectors - v);
    for (size_t i = 0; i < width; ++i, ++v) {
      const size_t column = v * lanes;
      PackBColumns(b + column * b_n, b_n, std::min(lanes, n - column), k, out + i * lanes,
                   width * lanes);
    }
    out += k * width * lanes;
  }
}

// Any strides.
HWY_INLINE void PackBStrided(const float* b, size_t b_k, size_t b_n, size_t n, size_t k,
                             float* HWY_RESTRICT out) {
  const size_t lanes = hn::Lanes(DF());
  const size_t vectors = (n + lanes - 1) / lanes;
  for (size_t v = 0; v < vectors;) {
    const size_t width = PanelVectors(vectors - v) * lanes;
    for (size_t kk = 0; kk < k; ++kk) {
      for (size_t i = 0; i < width; ++i) {
        const size_t column = v * lanes + i;
        out[kk * width + i] = column < n ? b[kk * b_k + column * b_n] : 0.0f;
      }
    }
    out += k * width;
    v += width / lanes;
  }
}

HWY_INLINE void PackB(const float* b, size_t b_k, size_t b_n, size_t n, size_t k, float* out) {
  if (b_n == 1) {
    PackBAlongN(b, b_k, n, k, out);
  } else if (b_k == 1) {
    PackBAlongK(b, b_n, n, k, out);
  } else {
    PackBStrided(b, b_k, b_n, n, k, out);
  }
}

}  // namespace matmul
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
