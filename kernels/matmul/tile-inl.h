// The register tile: up to 8 rows by 3 vectors of C (or as many accumulators in another shape), an
// outer product per step of k. Everything else in the engine only feeds it. Accumulators have names
// because SVE vectors cannot be array elements.
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
#include "kernels/matmul/ahead.h"
#include "kernels/matmul/parts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

// Steps of k before a tile's end at which it starts to fetch its rows of C.
inline constexpr size_t kFetchSteps = 96;
// Lines that tiles of blocks and of panels fetch of what comes next, every four steps.
inline constexpr size_t kFetchBlocked = 1;
inline constexpr size_t kFetchPanels = 2;
// Not so many lines, but for each step as much of B for the next tile as this one reads.
inline constexpr size_t kFetchB = 3;

using kernels::matmul::Ahead;
using kernels::matmul::AreAligned;
using kernels::matmul::kLineFloats;
using kernels::matmul::PrefetchToL2;

// Copies the kTileRows floats of one step of k of a panel of A.
HWY_INLINE void CopyRowsOfA(const float* HWY_RESTRICT from, float* HWY_RESTRICT to) {
  const hn::CappedTag<float, kTileRows == 8 ? 8 : 2> d;
  for (size_t r = 0; r < kTileRows; r += hn::Lanes(d)) {
    hn::StoreU(hn::LoadU(d, from + r), d, to + r);
  }
}

// A panel of A that is packed while the tiles above it compute, from rows that lie side by side.
// Each step of k is a cache line of its own, often a power of two from the one before: few of them
// fit in the sets of the caches at once, so each is fetched shortly before it is copied.
struct PackAhead {
  static constexpr size_t kLead = 32;

  const float* from = nullptr;
  size_t a_k = 0;
  float* to = nullptr;
  size_t steps = 0;        // left
  size_t at_once = 1;      // steps between those of a tile
  bool two_lines = false;  // the floats of a step may reach into a second line

  HWY_INLINE void Begin() const {
    for (size_t i = 0; i < HWY_MIN(kLead, steps); ++i) Fetch(i);
  }
  HWY_INLINE void Copy(size_t count) {
    for (; count != 0 && steps != 0; --count, --steps, from += a_k, to += kTileRows) {
      if (steps > kLead) Fetch(kLead);
      CopyRowsOfA(from, to);
    }
  }
  HWY_INLINE void Fetch(size_t step) const {
    PrefetchToL2(from + step * a_k);
    if (two_lines) PrefetchToL2(from + step * a_k + kTileRows - 1);
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
  size_t last;       // valid lanes of the last vector of a row, 0 when all are
  Ahead* ahead;      // what tiles that fetch fetch meanwhile
  uintptr_t next_b;  // or what tiles that fetch B do, from here on
  bool twice;        // of blocks: twice as much
  PackAhead* pack;   // and what they pack, unless A lies along k
  float* copy_b;     // where the tiles that copy B put the packed panel
};

using TileFunction = void (*)(const Tile&);

#define LW_TILE_ROWS(ROW) \
  ROW(0)                  \
  ROW(1)                  \
  ROW(2)                  \
  ROW(3) ROW(4) ROW(5) ROW(6) ROW(7) ROW(8) ROW(9) ROW(10) ROW(11) ROW(12) ROW(13) ROW(14) ROW(15)

#define LW_TILE_DECLARE(r)                                                                  \
  VF c##r##_0 = hn::Zero(d), c##r##_1 = c##r##_0, c##r##_2 = c##r##_0, c##r##_3 = c##r##_0; \
  (void)c##r##_0, (void)c##r##_1, (void)c##r##_2, (void)c##r##_3;

#define LW_TILE_FMA(r)                                                   \
  if constexpr (kRows > r) {                                             \
    const VF av = hn::Set(d, LW_TILE_A(r));                              \
    c##r##_0 = hn::MulAdd(av, b0, c##r##_0);                             \
    if constexpr (kVectors > 1) c##r##_1 = hn::MulAdd(av, b1, c##r##_1); \
    if constexpr (kVectors > 2) c##r##_2 = hn::MulAdd(av, b2, c##r##_2); \
    if constexpr (kVectors > 3) c##r##_3 = hn::MulAdd(av, b3, c##r##_3); \
  }

// One step of k. Tiles that meet b (a) first pack it for the others on the way: that costs less
// than a pass of its own.
#define LW_TILE_STEP                                                     \
  {                                                                      \
    const VF b0 = LoadWide(b);                                           \
    VF b1 = b0, b2 = b0, b3 = b0;                                        \
    if constexpr (kVectors > 1) b1 = LoadWide(b + lanes);                \
    if constexpr (kVectors > 2) b2 = LoadWide(b + 2 * lanes);            \
    if constexpr (kVectors > 3) b3 = LoadWide(b + 3 * lanes);            \
    (void)b1, (void)b2, (void)b3;                                        \
    LW_TILE_ROWS(LW_TILE_FMA)                                            \
    if constexpr (kCopyB) {                                              \
      hn::StoreU(b0, d, copy_b);                                         \
      if constexpr (kVectors > 1) hn::StoreU(b1, d, copy_b + lanes);     \
      if constexpr (kVectors > 2) hn::StoreU(b2, d, copy_b + 2 * lanes); \
      copy_b += kVectors * lanes;                                        \
    }                                                                    \
    if constexpr (kFetch == kFetchB) {                                   \
      FetchFloats<T>(next_b, kVectors * lanes);                          \
      next_b += b_k * sizeof(T);                                         \
    }                                                                    \
    b += b_k;                                                            \
    KeepInRegister(b);                                                   \
    if constexpr (!kAlongK) {                                            \
      a[0] += a_k;                                                       \
      KeepInRegister(a[0]);                                              \
    }                                                                    \
  }

#define LW_TILE_CONTINUE(r)                                                                 \
  if constexpr (kRows > r) {                                                                \
    c##r##_0 = hn::LoadU(d, t.add + r * t.add_row);                                         \
    if constexpr (kVectors > 1) c##r##_1 = hn::LoadU(d, t.add + r * t.add_row + lanes);     \
    if constexpr (kVectors > 2) c##r##_2 = hn::LoadU(d, t.add + r * t.add_row + 2 * lanes); \
    if constexpr (kVectors > 3) c##r##_3 = hn::LoadU(d, t.add + r * t.add_row + 3 * lanes); \
  }

#define LW_TILE_ADD(r)                                                                 \
  if constexpr (kRows > r) {                                                           \
    AddRow<kVectors>(add + r * add_row, last, c##r##_0, c##r##_1, c##r##_2, c##r##_3); \
  }

#define LW_TILE_STORE(r)                                                             \
  if constexpr (kRows > r) {                                                         \
    StoreRow<kVectors>(c + r * c_row, last, c##r##_0, c##r##_1, c##r##_2, c##r##_3); \
  }

// Every fourth step asks for a line or two of what comes next, and some steps before the end for
// the rows that the results will be added to. Never many at once: tiles need the same buffers for
// their loads.
template <size_t kRows, size_t kLines>
HWY_INLINE void FetchBetween(const Tile& t, size_t steps_left, size_t first, size_t floats) {
  const size_t row = first - steps_left;
  if (row < kRows) {
    const float* p = t.add != nullptr ? t.add + row * t.add_row : t.c + row * t.c_row;
    for (size_t i = 0; i < floats; i += kLineFloats) hwy::Prefetch(p + i);
    return;
  }
  for (size_t i = 0; i < kLines; ++i) t.ahead->FetchLine();
  if (kLines == kFetchBlocked && t.twice) t.ahead->FetchLine();
}

// The lines of `size` elements at an address, which may be beyond an array.
template <typename T>
HWY_INLINE void FetchFloats(uintptr_t address, size_t size) {
  for (size_t i = 0; i < size * sizeof(T); i += kLineFloats * sizeof(float)) {
    hwy::Prefetch(reinterpret_cast<const T*>(address + i));  // NOLINT(performance-no-int-to-ptr)
  }
}

// kAlongK: a[r, k] with consecutive k in memory, a row-major left operand, read where it lies.
// Otherwise with consecutive r: a transposed left operand, or a packed panel.
// kFetch: lines of what comes next for every four steps.
// kContinue: the sums go on from those in `add`, whole vectors, rather than being added to them.
template <bool kAlongK, size_t kRows, size_t kVectors, size_t kFetch = 0, bool kCopyB = false,
          typename T = float, bool kContinue = false>
void ComputeTile(const Tile& t) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  LW_TILE_ROWS(LW_TILE_DECLARE)
  if constexpr (kContinue) {
    LW_TILE_ROWS(LW_TILE_CONTINUE)
  }
  const T* HWY_RESTRICT b = reinterpret_cast<const T*>(t.b);
  const size_t b_k = t.b_k;
  const size_t a_k = t.a_k;
  // One pointer for four rows: sixteen of their own would not fit the registers.
  constexpr size_t kQuads = kAlongK ? (kRows + 3) / 4 : 1;
  size_t a_row = t.a_row;
  size_t a_row3 = 3 * a_row;
  const float* a[kQuads];
  for (size_t i = 0; i < kQuads; ++i) a[i] = t.a + 4 * i * a_row;
  float* HWY_RESTRICT copy_b = t.copy_b;
  uintptr_t next_b = t.next_b;
  (void)a_k, (void)a_row3, (void)copy_b, (void)next_b;
#define LW_TILE_A(r) \
  (kAlongK ? (a[r / 4 % kQuads] + (r % 4 == 3 ? a_row3 : r % 4 * a_row))[kk] : a[0][r])
  const size_t fetch_first = HWY_MIN(kFetchSteps, t.k) / 4;
  (void)fetch_first;
  size_t k = t.k;
  for (; k >= 4; k -= 4) {
    if constexpr (kAlongK) {
      KeepInRegister(a_row);
      KeepInRegister(a_row3);
    }
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
    for (size_t i = 0; kAlongK && i < kQuads; ++i) a[i] += 4;
    if constexpr (kFetch == kFetchBlocked || kFetch == kFetchPanels) {
      FetchBetween<kRows, kFetch>(t, k / 4, fetch_first, kVectors * lanes);
    }
    if constexpr (kFetch == kFetchBlocked && !kAlongK) t.pack->Copy(t.pack->at_once);
  }
  for (size_t kk = 0; kk < k; ++kk) LW_TILE_STEP
#undef LW_TILE_A
  const float* add = t.add;
  float* c = t.c;
  const size_t add_row = t.add_row, c_row = t.c_row, last = t.last;
  // All are read before any is written: a row's end and the next one's start may share a line.
  if (!kContinue && add != nullptr) {
    LW_TILE_ROWS(LW_TILE_ADD)
  }
  LW_TILE_ROWS(LW_TILE_STORE)
}

// The tile of kIndex in a table by vectors and rows, null if registers do not hold it. Low ones do
// not fetch: where they are needed there is little to do.
template <bool kAlongK, size_t kFetch, typename T, size_t kIndex>
constexpr TileFunction TileAt() {
  constexpr size_t kVectors = kIndex / kTallRows[0] + 1;
  constexpr size_t kRows = kIndex % kTallRows[0] + 1;
  if constexpr (kRows > kTallRows[kVectors - 1]) {
    return nullptr;
  } else {
    constexpr size_t kMost = kFetch == kFetchBlocked ? kTileRows : kTallRows[kVectors - 1];
    constexpr bool kUsed = kFetch == kFetchBlocked ? kVectors <= kTileVectors : kAlongK;
    constexpr bool kLarge = kUsed && kRows <= kMost && (kFetch == kFetchB || 2 * kRows > kMost);
    constexpr size_t kFetched = kLarge ? kFetch : 0;
    return &ComputeTile<kAlongK, kRows, kVectors, kFetched, false, T>;
  }
}
template <bool kAlongK, size_t kFetch, typename T, size_t... kIndex>
constexpr std::array<TileFunction, sizeof...(kIndex)> Tiles(std::index_sequence<kIndex...>) {
  return {TileAt<kAlongK, kFetch, T, kIndex>()...};
}

// The tile of this many rows and vectors, for a left operand contiguous in k or in m.
template <size_t kFetch>
HWY_INLINE TileFunction SelectTile(bool along_k, size_t rows, size_t vectors) {
  constexpr auto kShapes = std::make_index_sequence<kTallRows[0] * kWideVectors>();
  static constexpr auto kAlongK = Tiles<true, kFetch, float>(kShapes);
  static constexpr auto kAlongM = Tiles<false, kFetch, float>(kShapes);
  const size_t index = (vectors - 1) * kTallRows[0] + rows - 1;
  return along_k ? kAlongK[index] : kAlongM[index];
}

// The tile for a left operand contiguous in k whose b points to bf16; it fetches B.
HWY_INLINE TileFunction SelectHalfTile(size_t rows, size_t vectors) {
  constexpr auto kShapes = std::make_index_sequence<kTallRows[0] * kWideVectors>();
  static constexpr auto kTiles = Tiles<true, kFetchB, BFloat16>(kShapes);
  return kTiles[(vectors - 1) * kTallRows[0] + rows - 1];
}

// The same for a tile of kTileRows rows and full vectors that packs b.
template <size_t kVectors>
HWY_INLINE TileFunction CopyingTile(bool along_k) {
  return along_k ? &ComputeTile<true, kTileRows, kVectors, kFetchBlocked, true>
                 : &ComputeTile<false, kTileRows, kVectors, kFetchBlocked, true>;
}
HWY_INLINE TileFunction SelectCopyingTile(bool along_k, size_t vectors) {
  if (vectors == 1) return CopyingTile<1>(along_k);
  if (vectors == 2) return CopyingTile<2>(along_k);
  return CopyingTile<kTileVectors>(along_k);
}

#undef LW_TILE_ROWS
#undef LW_TILE_DECLARE
#undef LW_TILE_CONTINUE
#undef LW_TILE_FMA
#undef LW_TILE_STEP
#undef LW_TILE_ADD
#undef LW_TILE_STORE

}  // namespace matmul
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
