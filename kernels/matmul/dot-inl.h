// The register tile of bf16 dot products: as the float32 tile, with two steps of k at once.
#if defined(LANEWISE_KERNELS_MATMUL_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_MATMUL_DOT_INL_H_
#undef LANEWISE_KERNELS_MATMUL_DOT_INL_H_
#else
#define LANEWISE_KERNELS_MATMUL_DOT_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "hwy/highway.h"
#include "kernels/matmul/bf16_tile.h"
#include "kernels/matmul/parts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

using kernels::matmul::Bf16Tile;
using kernels::matmul::Bf16TileFunction;
using kernels::matmul::kBf16Steps;

// Whether this target has an instruction for pairs of bf16, and it is twice as fast as float32. On
// Sapphire Rapids it is half as fast.
inline constexpr bool kNativeDot = LANEWISE_BF16_DOT;
inline constexpr bool kFastDot = kNativeDot && HWY_TARGET != HWY_AVX3_SPR;

#define LW_DOT_TILE_ROWS(ROW) ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5) ROW(6) ROW(7)

template <size_t kRows, size_t kVectors>
void DotTileOf(const Bf16Tile& t) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const size_t lanes = hn::Lanes(d);
#define LW_DOT_TILE_DECLARE(r)                                            \
  VF c##r##0 = hn::Zero(d), c##r##1 = hn::Zero(d), c##r##2 = hn::Zero(d); \
  (void)c##r##0, (void)c##r##1, (void)c##r##2;
  LW_DOT_TILE_ROWS(LW_DOT_TILE_DECLARE)
#undef LW_DOT_TILE_DECLARE
  // Two pointers and a stride reach eight rows; a pointer for each is more than there are
  // registers.
  const size_t stride = t.a_row;
  const size_t a_pair = t.a_pair;
  const BFloat16* low = t.a;
  const BFloat16* high = t.a + (kRows > kLowRows ? kLowRows * stride : 0);
  const uint32_t* HWY_RESTRICT b = reinterpret_cast<const uint32_t*>(t.b);
  for (size_t k = 0; k < t.k; k += kBf16Steps) {
    FetchBetween(t, k);
    for (size_t step = 0; step < kBf16Steps; step += 2) {
      const VPairs b0 = hn::LoadU(du, b);
      VPairs b1 = b0, b2 = b0;
      if constexpr (kVectors > 1) b1 = hn::LoadU(du, b + lanes);
      if constexpr (kVectors > 2) b2 = hn::LoadU(du, b + 2 * lanes);
      (void)b1, (void)b2;
#define LW_DOT_TILE_STEP(r)                                                                   \
  if constexpr (kRows > r) {                                                                  \
    uint32_t pair;                                                                            \
    hwy::CopyBytes<sizeof(pair)>((r < kLowRows ? low : high) + r % kLowRows * stride, &pair); \
    const VPairs a = hn::Set(du, pair);                                                       \
    c##r##0 = DotPairs(a, b0, c##r##0);                                                       \
    if constexpr (kVectors > 1) c##r##1 = DotPairs(a, b1, c##r##1);                           \
    if constexpr (kVectors > 2) c##r##2 = DotPairs(a, b2, c##r##2);                           \
  }
      LW_DOT_TILE_ROWS(LW_DOT_TILE_STEP)
#undef LW_DOT_TILE_STEP
      low += a_pair;
      high += a_pair;
      b += kVectors * lanes;
    }
  }
  const size_t last = t.columns % lanes;
#define LW_DOT_TILE_STORE(r)                                                             \
  if constexpr (kRows > r) {                                                             \
    if (t.add != nullptr) {                                                              \
      AddRow<kVectors>(t.add + r * t.add_row, last, c##r##0, c##r##1, c##r##2, c##r##2); \
    }                                                                                    \
    StoreRow<kVectors>(t.c + r * t.c_row, last, c##r##0, c##r##1, c##r##2, c##r##2);     \
  }
  LW_DOT_TILE_ROWS(LW_DOT_TILE_STORE)
#undef LW_DOT_TILE_STORE
}

#undef LW_DOT_TILE_ROWS

template <size_t... kIndex>
constexpr std::array<Bf16TileFunction, sizeof...(kIndex)> DotTiles(std::index_sequence<kIndex...>) {
  return {&DotTileOf<kIndex / kTileVectors + 1, kIndex % kTileVectors + 1>...};
}

HWY_INLINE void RunDotTile(const Bf16Tile& tile) {
  static constexpr auto kTiles = DotTiles(std::make_index_sequence<kTileRows * kTileVectors>());
  const size_t vectors = CeilDiv(tile.columns, hn::Lanes(DF()));
  kTiles[(tile.rows - 1) * kTileVectors + vectors - 1](tile);
}

}  // namespace matmul
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
