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
#include <type_traits>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/matmul.h"
#include "kernels/matmul/parts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

// One panel of A of any strides: k times kTileRows floats.
HWY_INLINE void PackA(const float* a, size_t a_row, size_t a_k, size_t rows, size_t k,
                      float* HWY_RESTRICT out) {
  for (size_t kk = 0; kk < k; ++kk, out += kTileRows) {
    for (size_t r = 0; r < rows; ++r) out[r] = a[r * a_row + kk * a_k];
  }
}

// One panel of B whose columns lie side by side. `last`: valid lanes of the last vector, 0 if all.
template <size_t kVectors, typename T>
HWY_INLINE void CopyPanelRow(const T* HWY_RESTRICT from, size_t last, float* HWY_RESTRICT to) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  if constexpr (kVectors > 1) hn::StoreU(LoadWide(from), d, to);
  if constexpr (kVectors > 2) hn::StoreU(LoadWide(from + lanes), d, to + lanes);
  if constexpr (kVectors > 3) hn::StoreU(LoadWide(from + 2 * lanes), d, to + 2 * lanes);
  const size_t tail = (kVectors - 1) * lanes;
  const VF x = HWY_UNLIKELY(last != 0) ? LoadWideN(from + tail, last) : LoadWide(from + tail);
  hn::StoreU(x, d, to + tail);
}

// A panel of B whose columns lie side by side (a row-major [k,n] matrix).
template <typename T>
HWY_INLINE void PackBAlongN(const T* b, size_t b_k, size_t width, size_t last, size_t k,
                            float* HWY_RESTRICT out) {
  const size_t step = width * hn::Lanes(DF());
  for (size_t kk = 0; kk < k; ++kk, b += b_k, out += step) {
    if (width == 1) CopyPanelRow<1>(b, last, out);
    if (width == 2) CopyPanelRow<2>(b, last, out);
    if (width == 3) CopyPanelRow<3>(b, last, out);
    if (width == 4) CopyPanelRow<4>(b, last, out);
  }
}

#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
// Transposes as many whole steps of k as it can of one vector of rows; returns their number.
HWY_INLINE size_t TransposeRows(EvenRows rows, size_t k, float* HWY_RESTRICT out, size_t stride) {
  size_t kk = 0;
  for (; kk + 4 <= k; kk += 4, out += 4 * stride, rows.Advance(4)) {
    TransposeFour(rows, 0, out, stride);
  }
  return kk;
}
HWY_INLINE size_t TransposeRows(const float* const* rows, size_t k, float* HWY_RESTRICT out,
                                size_t stride) {
  size_t kk = 0;
  for (; kk + 4 <= k; kk += 4) TransposeFour(rows, kk, out + kk * stride, stride);
  return kk;
}
// The same for bf16: pairs of steps are transposed as if they were one float, and then split.
HWY_INLINE size_t TransposeRows(const BFloat16* const* rows, size_t k, float* HWY_RESTRICT out,
                                size_t stride) {
  constexpr size_t kLanes = hn::MaxLanes(DF());
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const float* pairs[kLanes];
  for (size_t i = 0; i < kLanes; ++i) pairs[i] = reinterpret_cast<const float*>(rows[i]);
  HWY_ALIGN float four[4 * kLanes];
  size_t kk = 0;
  for (; kk + 8 <= k; kk += 8) {
    TransposeFour(pairs, kk / 2, four, kLanes);
    for (size_t i = 0; i < 4; ++i) {
      const auto pair = hn::BitCast(du, hn::Load(d, four + i * kLanes));
      float* even = out + (kk + 2 * i) * stride;
      hn::StoreU(hn::BitCast(d, hn::ShiftLeft<16>(pair)), d, even);
      hn::StoreU(hn::BitCast(d, hn::And(pair, hn::Set(du, 0xFFFF0000U))), d, even + stride);
    }
  }
  return kk;
}
#endif

// One vector of columns of a panel, each column contiguous in k.
template <typename T>
HWY_INLINE void PackBColumns(const T* b, size_t b_n, size_t columns, size_t k,
                             float* HWY_RESTRICT out, size_t stride) {
  size_t kk = 0;
#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
  constexpr size_t kLanes = hn::MaxLanes(DF());
  if (std::is_same_v<T, float> && columns == kLanes) {
    kk = TransposeRows(EvenRows(reinterpret_cast<const float*>(b), b_n), k, out, stride);
  } else {
    const T* rows[kLanes];
    for (size_t i = 0; i < kLanes; ++i) rows[i] = b + std::min(i, columns - 1) * b_n;
    kk = TransposeRows(rows, k, out, stride);
  }
#endif
  const size_t lanes = hn::Lanes(DF());
  for (; kk < k; ++kk) {
    for (size_t i = 0; i < lanes; ++i) {
      out[kk * stride + i] = Widen(b[std::min(i, columns - 1) * b_n + kk]);
    }
  }
}

// A panel of `columns` columns of B of any strides.
template <typename T>
HWY_INLINE void PackBStrided(const T* b, size_t b_k, size_t b_n, size_t width, size_t columns,
                             size_t k, float* HWY_RESTRICT out) {
  const size_t step = width * hn::Lanes(DF());
  for (size_t kk = 0; kk < k; ++kk, out += step) {
    for (size_t i = 0; i < step; ++i) out[i] = i < columns ? Widen(b[kk * b_k + i * b_n]) : 0.0f;
  }
}

// Packs a panel of `columns` columns: k times whole vectors, the last one padded.
template <typename T>
HWY_INLINE void PackBPanel(const T* b, size_t b_k, size_t b_n, size_t columns, size_t k,
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
