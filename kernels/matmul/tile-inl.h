// The register tile: up to 8 rows by 3 vectors of C, an outer product per step of k. Everything
// else in the engine only feeds it. Accumulators have names because SVE vectors cannot be array
// elements.
#if defined(LANEWISE_KERNELS_MATMUL_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_MATMUL_TILE_INL_H_
#undef LANEWISE_KERNELS_MATMUL_TILE_INL_H_
#else
#define LANEWISE_KERNELS_MATMUL_TILE_INL_H_
#endif

#include <array>
#include <cstddef>
#include <utility>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/matmul/parts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

inline constexpr size_t kLineFloats = 16;
// Steps of k before a tile's end at which it starts to fetch its rows of C.
inline constexpr size_t kFetchSteps = 96;

// Asks for a cache line without making room for it in L1.
template <typename T>
HWY_INLINE void PrefetchToL2(const T* p) {
#if HWY_COMPILER_GCC || HWY_COMPILER_CLANG
  __builtin_prefetch(p, 0, 2);
#else
  hwy::Prefetch(p);
#endif
}

// Memory that will be read soon, fetched into L2 line by line while tiles compute: packing and the
// first read of a panel would otherwise wait for it.
struct Ahead {
  const float* data = nullptr;
  size_t stride = 0;  // floats from row to row
  size_t rows = 0;    // rows left
  size_t columns = 0;
  size_t column = 0;

  HWY_INLINE size_t Lines() const { return rows * ((columns + kLineFloats - 1) / kLineFloats); }
  HWY_INLINE bool Done() const { return rows == 0; }
  HWY_INLINE void FetchLine() {
    if (rows == 0) return;
    PrefetchToL2(data + column);
    column += kLineFloats;
    if (column >= columns) {
      column = 0;
      data += stride;
      --rows;
    }
  }
};

// One tile: c[r, :] = add[r, :] + sum_k a[r, k] * b[k, :].
struct Tile {
  const float* a;
  size_t a_row;    // stride from row to row
  size_t a_k;      // and from k to k
  const float* b;  // or bf16, see SelectHalfTile
  size_t b_k;
  float* c;
  size_t c_row;
  const float* add;  // null: nothing is added
  size_t add_row;
  size_t k;
  size_t last;    // valid lanes of the last vector of a row, 0 when all are
  Ahead* ahead;   // what to fetch meanwhile
  float* copy_a;  // where the tiles that copy their operands put the packed panels
  float* copy_b;
};

using TileFunction = void (*)(const Tile&);

#define LW_TILE_ROWS(ROW) ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5) ROW(6) ROW(7)

#define LW_TILE_DECLARE(r)                                                \
  VF c##r##0 = hn::Zero(d), c##r##1 = hn::Zero(d), c##r##2 = hn::Zero(d); \
  (void)c##r##0, (void)c##r##1, (void)c##r##2;

#define LW_TILE_FMA(r)                                                 \
  if constexpr (kRows > r) {                                           \
    const VF av = hn::Set(d, LW_TILE_A(r));                            \
    c##r##0 = hn::MulAdd(av, b0, c##r##0);                             \
    if constexpr (kVectors > 1) c##r##1 = hn::MulAdd(av, b1, c##r##1); \
    if constexpr (kVectors > 2) c##r##2 = hn::MulAdd(av, b2, c##r##2); \
  }

// One step of k. Tiles that meet b (a) first pack it for the others on the way: that costs less
// than a pass of its own.
#define LW_TILE_STEP                                                     \
  {                                                                      \
    const VF b0 = LoadWide(b);                                           \
    VF b1 = b0, b2 = b0;                                                 \
    if constexpr (kVectors > 1) b1 = LoadWide(b + lanes);                \
    if constexpr (kVectors > 2) b2 = LoadWide(b + 2 * lanes);            \
    (void)b1, (void)b2;                                                  \
    LW_TILE_ROWS(LW_TILE_FMA)                                            \
    if constexpr (kCopyB) {                                              \
      hn::StoreU(b0, d, copy_b);                                         \
      if constexpr (kVectors > 1) hn::StoreU(b1, d, copy_b + lanes);     \
      if constexpr (kVectors > 2) hn::StoreU(b2, d, copy_b + 2 * lanes); \
      copy_b += kVectors * lanes;                                        \
    }                                                                    \
    b += b_k;                                                            \
  }

#define LW_TILE_STORE(r)                                                                      \
  if constexpr (kRows > r) {                                                                  \
    StoreRow<kVectors>(t.c + r * t.c_row, t.add == nullptr ? nullptr : t.add + r * t.add_row, \
                       t.last, c##r##0, c##r##1, c##r##2);                                    \
  }

// Every fourth step asks for one line of what comes next, and some steps before the end for the
// rows that the results will be added to. Never many at once: tiles need the same buffers for their
// loads.
template <size_t kRows>
HWY_INLINE void FetchBetween(const Tile& t, size_t steps_left, size_t first, size_t floats) {
  const size_t row = first - steps_left;
  if (row < kRows) {
    const float* p = t.add != nullptr ? t.add + row * t.add_row : t.c + row * t.c_row;
    for (size_t i = 0; i < floats; i += kLineFloats) hwy::Prefetch(p + i);
    return;
  }
  t.ahead->FetchLine();
}

// a[r, k] with consecutive k in memory: a row-major left operand, read where it lies.
template <size_t kRows, size_t kVectors, bool kCopyB = false, typename T = float>
void TileAlongK(const Tile& t) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  LW_TILE_ROWS(LW_TILE_DECLARE)
  const T* HWY_RESTRICT b = reinterpret_cast<const T*>(t.b);
  const size_t b_k = t.b_k;
  float* HWY_RESTRICT copy_b = t.copy_b;
  (void)copy_b;
  const float* a0 = t.a;
  const float* a1 = a0 + (kRows > 1 ? t.a_row : 0);
  const float* a2 = a1 + (kRows > 2 ? t.a_row : 0);
  const float* a3 = a2 + (kRows > 3 ? t.a_row : 0);
  const float* a4 = a3 + (kRows > 4 ? t.a_row : 0);
  const float* a5 = a4 + (kRows > 5 ? t.a_row : 0);
  const float* a6 = a5 + (kRows > 6 ? t.a_row : 0);
  const float* a7 = a6 + (kRows > 7 ? t.a_row : 0);
  (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7;
  size_t k = t.k;
  const size_t fetch_first = HWY_MIN(kFetchSteps, k);
#define LW_TILE_A(r) a##r[kk]
#define LW_TILE_ADVANCE(r) a##r += 4;
  for (; k >= 4; k -= 4) {
    {
      constexpr size_t kk = 0;
      LW_TILE_STEP
    }
    {
      constexpr size_t kk = 1;
      LW_TILE_STEP
    }
    {
      constexpr size_t kk = 2;
      LW_TILE_STEP
    }
    {
      constexpr size_t kk = 3;
      LW_TILE_STEP
    }
    LW_TILE_ROWS(LW_TILE_ADVANCE)
    FetchBetween<kRows>(t, k / 4, fetch_first / 4, kVectors * lanes);
  }
#undef LW_TILE_ADVANCE
  for (size_t kk = 0; kk < k; ++kk) LW_TILE_STEP
#undef LW_TILE_A
  LW_TILE_ROWS(LW_TILE_STORE)
}

// Copies the kTileRows floats of one k of a panel of A.
HWY_INLINE void CopyRowsOfA(const float* HWY_RESTRICT from, float* HWY_RESTRICT to) {
  const hn::CappedTag<float, kTileRows == 8 ? 8 : 2> d;
  for (size_t r = 0; r < kTileRows; r += hn::Lanes(d))
    hn::StoreU(hn::LoadU(d, from + r), d, to + r);
}

// a[r, k] with consecutive r in memory: a transposed left operand, or a packed panel.
template <size_t kRows, size_t kVectors, bool kCopyB = false, bool kCopyA = false>
void TileAlongM(const Tile& t) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  LW_TILE_ROWS(LW_TILE_DECLARE)
  const float* HWY_RESTRICT b = t.b;
  const float* HWY_RESTRICT a = t.a;
  const size_t b_k = t.b_k;
  const size_t a_k = t.a_k;
  float* HWY_RESTRICT copy_a = t.copy_a;
  float* HWY_RESTRICT copy_b = t.copy_b;
  (void)copy_a, (void)copy_b;
  size_t k = t.k;
  const size_t fetch_first = HWY_MIN(kFetchSteps, k);
#define LW_TILE_A(r) a[r]
#define LW_TILE_STEP_M      \
  LW_TILE_STEP              \
  if constexpr (kCopyA) {   \
    CopyRowsOfA(a, copy_a); \
    copy_a += kTileRows;    \
  }                         \
  a += a_k;
  for (; k >= 4; k -= 4) {
    LW_TILE_STEP_M LW_TILE_STEP_M LW_TILE_STEP_M LW_TILE_STEP_M FetchBetween<kRows>(
        t, k / 4, fetch_first / 4, kVectors * lanes);
  }
  for (; k != 0; --k) {
    LW_TILE_STEP_M
  }
#undef LW_TILE_STEP_M
#undef LW_TILE_A
  LW_TILE_ROWS(LW_TILE_STORE)
}

template <typename T, size_t... kIndex>
constexpr std::array<TileFunction, sizeof...(kIndex)> TilesAlongK(std::index_sequence<kIndex...>) {
  return {&TileAlongK<kIndex / kTileVectors + 1, kIndex % kTileVectors + 1, false, T>...};
}
template <size_t... kIndex>
constexpr std::array<TileFunction, sizeof...(kIndex)> TilesAlongM(std::index_sequence<kIndex...>) {
  return {&TileAlongM<kIndex / kTileVectors + 1, kIndex % kTileVectors + 1>...};
}

// The tile of this many rows and vectors, for a left operand contiguous in k or in m.
HWY_INLINE TileFunction SelectTile(bool along_k, size_t rows, size_t vectors) {
  constexpr auto kShapes = std::make_index_sequence<kTileRows * kTileVectors>();
  static constexpr auto kAlongK = TilesAlongK<float>(kShapes);
  static constexpr auto kAlongM = TilesAlongM(kShapes);
  const size_t index = (rows - 1) * kTileVectors + vectors - 1;
  return along_k ? kAlongK[index] : kAlongM[index];
}

// The tile for a left operand contiguous in k whose b points to bf16.
HWY_INLINE TileFunction SelectHalfTile(size_t rows, size_t vectors) {
  static constexpr auto kTiles =
      TilesAlongK<BFloat16>(std::make_index_sequence<kTileRows * kTileVectors>());
  return kTiles[(rows - 1) * kTileVectors + vectors - 1];
}

// The same for a tile of kTileRows rows and full vectors that packs b or a.
template <size_t kVectors>
HWY_INLINE TileFunction CopyingTile(bool along_k, bool copy_a, bool copy_b) {
  if (along_k) return &TileAlongK<kTileRows, kVectors, true>;
  if (!copy_a) return &TileAlongM<kTileRows, kVectors, true, false>;
  return copy_b ? &TileAlongM<kTileRows, kVectors, true, true>
                : &TileAlongM<kTileRows, kVectors, false, true>;
}
HWY_INLINE TileFunction SelectCopyingTile(bool along_k, bool copy_a, bool copy_b, size_t vectors) {
  if (vectors == 1) return CopyingTile<1>(along_k, copy_a, copy_b);
  if (vectors == 2) return CopyingTile<2>(along_k, copy_a, copy_b);
  return CopyingTile<kTileVectors>(along_k, copy_a, copy_b);
}

#undef LW_TILE_ROWS
#undef LW_TILE_DECLARE
#undef LW_TILE_FMA
#undef LW_TILE_STEP
#undef LW_TILE_STORE

}  // namespace matmul
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
