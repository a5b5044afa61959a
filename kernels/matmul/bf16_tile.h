// What the two bf16 units have in common: one tile of C from packed operands.
#ifndef LANEWISE_KERNELS_MATMUL_BF16_TILE_H_
#define LANEWISE_KERNELS_MATMUL_BF16_TILE_H_

#include <cstddef>

#include "hwy/base.h"
#include "hwy/cache_control.h"
#include "kernels/matmul/ahead.h"
#include "kernels/view.h"

namespace lanewise::kernels::matmul {

// Steps of k come in multiples of this; the rest is zeros.
inline constexpr size_t kBf16Steps = 32;

// c[r, j] = add[r, j] + sum_k a[r, k] * b[k, j].
//
// a: rows of bf16, each k in a row, in a buffer with room for a whole tile of rows; for dot
// products also panels, with the pairs of steps (k, k + 1) of all rows side by side. b: panels of
// whole vectors of columns, each for every pair of steps (k, k + 1) and every column the two bf16
// side by side. `panel` is the distance of two panels of sixteen columns (AMX).
struct Bf16Tile {
  const BFloat16* a = nullptr;
  size_t a_row = 0;
  size_t a_pair = 2;  // from one pair of steps to the next
  const BFloat16* b = nullptr;
  size_t panel = 0;
  size_t k = 0;  // a multiple of kBf16Steps
  float* c = nullptr;
  size_t c_row = 0;
  const float* add = nullptr;  // null: nothing is added
  size_t add_row = 0;
  size_t rows = 0;
  size_t columns = 0;
  const float* next = nullptr;  // where the next tile begins in C, or in what is added to it
  size_t next_row = 0;
  Ahead* ahead = nullptr;  // what is fetched meanwhile, `ahead_lines` every kBf16Steps
  size_t ahead_lines = 0;
};

using Bf16TileFunction = void (*)(const Bf16Tile&);

// Before the kBf16Steps steps from k: fetches a few rows of what the next tile adds to or writes,
// then what comes after.
HWY_INLINE void FetchBetween(const Bf16Tile& t, size_t k) {
  constexpr size_t kRowsAtOnce = 4;
  const size_t first = k / kBf16Steps * kRowsAtOnce;
  for (size_t r = first; r < HWY_MIN(first + kRowsAtOnce, t.rows); ++r) {
    const float* p = t.next + r * t.next_row;
    for (size_t j = 0; j < t.columns; j += kLineFloats) hwy::Prefetch(p + j);
  }
  for (size_t i = 0; i < t.ahead_lines; ++i) t.ahead->FetchLine();
}

}  // namespace lanewise::kernels::matmul

#endif  // LANEWISE_KERNELS_MATMUL_BF16_TILE_H_
