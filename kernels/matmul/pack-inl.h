// Copies operands into the order in which the tile reads them. A packed panel of B holds, for each
// k, the columns of one tile (whole vectors, padded beyond the last column); a panel of A holds for
// each k kTileRows rows.
#if defined(LANEWISE_KERNELS_MATMUL_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_MATMUL_PACK_INL_H_
#undef LANEWISE_KERNELS_MATMUL_PACK_INL_H_
#else
#define LANEWISE_KERNELS_MATMUL_PACK_INL_H_
#endif

#include <algorithm>
#include <cstddef>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/matmul.h"
#include "kernels/matmul/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

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

// One panel of A of any strides: k times kTileRows floats.
HWY_INLINE void PackA(const float* a, size_t a_row, size_t a_k, size_t rows, size_t k,
                      float* HWY_RESTRICT out) {
  for (size_t kk = 0; kk < k; ++kk, out += kTileRows) {
    for (size_t r = 0; r < rows; ++r) out[r] = a[r * a_row + kk * a_k];
  }
}

// One panel of B whose columns lie side by side. `last`: valid lanes of the last vector, 0 if all.
template <size_t kVectors>
HWY_INLINE void CopyPanelRow(const float* HWY_RESTRICT from, size_t last, float* HWY_RESTRICT to) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  if constexpr (kVectors > 1) hn::StoreU(hn::LoadU(d, from), d, to);
  if constexpr (kVectors > 2) hn::StoreU(hn::LoadU(d, from + lanes), d, to + lanes);
  const size_t tail = (kVectors - 1) * lanes;
  const VF x =
      HWY_UNLIKELY(last != 0) ? hn::LoadN(d, from + tail, last) : hn::LoadU(d, from + tail);
  hn::StoreU(x, d, to + tail);
}

// A panel of B whose columns lie side by side (a row-major [k,n] matrix).
HWY_INLINE void PackBAlongN(const float* b, size_t b_k, size_t width, size_t last, size_t k,
                            float* HWY_RESTRICT out) {
  const size_t step = width * hn::Lanes(DF());
  for (size_t kk = 0; kk < k; ++kk, b += b_k, out += step) {
    if (width == 1) CopyPanelRow<1>(b, last, out);
    if (width == 2) CopyPanelRow<2>(b, last, out);
    if (width == 3) CopyPanelRow<3>(b, last, out);
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

// A panel of `columns` columns of B of any strides.
HWY_INLINE void PackBStrided(const float* b, size_t b_k, size_t b_n, size_t width, size_t columns,
                             size_t k, float* HWY_RESTRICT out) {
  const size_t step = width * hn::Lanes(DF());
  for (size_t kk = 0; kk < k; ++kk, out += step) {
    for (size_t i = 0; i < step; ++i) out[i] = i < columns ? b[kk * b_k + i * b_n] : 0.0f;
  }
}

// Packs a panel of `columns` columns: k times whole vectors, the last one padded.
HWY_INLINE void PackBPanel(const float* b, size_t b_k, size_t b_n, size_t columns, size_t k,
                           float* HWY_RESTRICT out) {
  const size_t lanes = hn::Lanes(DF());
  const size_t width = (columns + lanes - 1) / lanes;
  if (b_n == 1) {
    PackBAlongN(b, b_k, width, columns % lanes, k, out);
  } else if (b_k == 1) {
    for (size_t i = 0; i < width; ++i) {
      PackBColumns(b + i * lanes * b_n, b_n, std::min(lanes, columns - i * lanes), k,
                   out + i * lanes, width * lanes);
    }
  } else {
    PackBStrided(b, b_k, b_n, width, columns, k, out);
  }
}

}  // namespace matmul
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
