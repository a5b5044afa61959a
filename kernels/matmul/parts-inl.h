// What the engines for float32 and bf16 share: the shape of the register tile, its last step, cuts,
// a transposition, the epilogue.
#if defined(LANEWISE_KERNELS_MATMUL_PARTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_MATMUL_PARTS_INL_H_
#undef LANEWISE_KERNELS_MATMUL_PARTS_INL_H_
#else
#define LANEWISE_KERNELS_MATMUL_PARTS_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/bfloat16-inl.h"
#include "kernels/matmul.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

// Tile shape by the number of vector registers: 32 hold 8x3 accumulators, 16 hold 6x2. Where
// everything is in the caches, one more vector makes fewer tiles, and narrow tiles are taller.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM || HWY_ARCH_RVV || HWY_ARCH_PPC || HWY_ARCH_S390X
inline constexpr size_t kTileRows = 8;
inline constexpr size_t kTileVectors = 3;
inline constexpr size_t kTallRows[] = {16, 12, 8, 6};  // of tiles of 1, 2... vectors
#else
inline constexpr size_t kTileRows = 6;
inline constexpr size_t kTileVectors = 2;
inline constexpr size_t kTallRows[] = {12, 6, 4};
#endif
inline constexpr size_t kWideVectors = kTileVectors + 1;

// Weights are stored as float32 or as bf16: either as float32.
HWY_INLINE VF LoadWide(const float* p) { return hn::LoadU(DF(), p); }
HWY_INLINE VF LoadWide(const BFloat16* p) { return bf16::Load(DF(), p); }
HWY_INLINE VF LoadWideN(const float* p, size_t n) { return hn::LoadN(DF(), p, n); }
HWY_INLINE VF LoadWideN(const BFloat16* p, size_t n) { return bf16::LoadN(DF(), p, n); }
HWY_INLINE float Widen(float x) { return x; }
HWY_INLINE float Widen(BFloat16 x) { return bf16::Widen(x); }

// Pairs of bf16, each in one float32's place.
using DPairs = hn::RebindToUnsigned<DF>;
using VPairs = hn::Vec<DPairs>;

// sum + the product of the pairs.
HWY_INLINE VF DotPairs(VPairs a, VPairs b, VF sum) {
  const DF d;
#if LANEWISE_BF16_DOT
  const hn::Repartition<hwy::bfloat16_t, DF> dh;
  VF unused = hn::Zero(d);
  return hn::ReorderWidenMulAccumulate(d, hn::BitCast(dh, a), hn::BitCast(dh, b), sum, unused);
#else
  const VPairs upper = hn::Set(DPairs(), 0xFFFF0000U);
  sum = hn::MulAdd(hn::BitCast(d, hn::ShiftLeft<16>(a)), hn::BitCast(d, hn::ShiftLeft<16>(b)), sum);
  return hn::MulAdd(hn::BitCast(d, hn::And(a, upper)), hn::BitCast(d, hn::And(b, upper)), sum);
#endif
}

HWY_INLINE size_t CeilDiv(size_t a, size_t b) { return (a + b - 1) / b; }

HWY_INLINE size_t TileColumns() { return kTileVectors * hn::Lanes(DF()); }

// How many of what is left the next tile or panel takes: `most`, and of the last two near-equal
// halves rather than all and a small remainder.
HWY_INLINE size_t NextPart(size_t left, size_t most) {
  if (left <= most) return left;
  return left < 2 * most ? (left + 1) / 2 : most;
}
// Vectors of the next panel of B.
HWY_INLINE size_t PanelVectors(size_t left) { return NextPart(left, kTileVectors); }

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

// Adds a row in memory to a row of results, whose last vector has `last` valid lanes (0: all).
template <size_t kVectors>
HWY_INLINE void AddRow(const float* HWY_RESTRICT add, size_t last, VF& v0, VF& v1, VF& v2, VF& v3) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  if constexpr (kVectors > 1) v0 = hn::Add(hn::LoadU(d, add), v0);
  if constexpr (kVectors > 2) v1 = hn::Add(hn::LoadU(d, add + lanes), v1);
  if constexpr (kVectors > 3) v2 = hn::Add(hn::LoadU(d, add + 2 * lanes), v2);
  const float* tail = add + (kVectors - 1) * lanes;
  const VF x = HWY_UNLIKELY(last != 0) ? hn::LoadN(d, tail, last) : hn::LoadU(d, tail);
  if constexpr (kVectors == 1) v0 = hn::Add(x, v0);
  if constexpr (kVectors == 2) v1 = hn::Add(x, v1);
  if constexpr (kVectors == 3) v2 = hn::Add(x, v2);
  if constexpr (kVectors == 4) v3 = hn::Add(x, v3);
}

// Stores such a row.
template <size_t kVectors>
HWY_INLINE void StoreRow(float* HWY_RESTRICT c, size_t last, VF v0, VF v1, VF v2, VF v3) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  if constexpr (kVectors > 1) hn::StoreU(v0, d, c);
  if constexpr (kVectors > 2) hn::StoreU(v1, d, c + lanes);
  if constexpr (kVectors > 3) hn::StoreU(v2, d, c + 2 * lanes);
  const VF x = kVectors == 1 ? v0 : kVectors == 2 ? v1 : kVectors == 3 ? v2 : v3;
  float* tail = c + (kVectors - 1) * lanes;
  if (HWY_UNLIKELY(last != 0)) {
    hn::StoreN(x, d, tail, last);
  } else {
    hn::StoreU(x, d, tail);
  }
}

// Keeps GCC from computing with x outside of a loop, or from adding a stride in every address: it
// runs out of registers, and a load with an index costs an operation more.
template <typename T>
HWY_INLINE void KeepInRegister(T& x) {
#if HWY_COMPILER_GCC || HWY_COMPILER_CLANG
  __asm__("" : "+r"(x));
#else
  (void)x;
#endif
}

// Of eight rows, those that a first pointer and a stride reach; a second one has the others.
inline constexpr size_t kLowRows = 4;

#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
// Rows in equal steps, addressed as four pointers to the first of every four.
struct EvenRows {
  const float* quads[hn::MaxLanes(DF()) / 4];
  size_t stride, stride3;

  EvenRows(const float* first, size_t row_stride) : stride(row_stride), stride3(3 * row_stride) {
    for (size_t i = 0; i < hn::MaxLanes(DF()) / 4; ++i) quads[i] = first + 4 * i * stride;
  }
  HWY_INLINE const float* operator[](size_t i) const {
    return quads[i / 4] + (i % 4 == 3 ? stride3 : i % 4 * stride);
  }
  HWY_INLINE void Advance(size_t k) {
    KeepInRegister(stride);
    KeepInRegister(stride3);
    for (const float*& p : quads) p += k;
  }
};

// Four k of every fourth row from kFirst, one 128-bit block each, as one vector.
template <size_t kFirst, typename Rows>
HWY_INLINE VF LoadBlocks(const Rows& rows, size_t k) {
#if HWY_MAX_BYTES == 16
  return hn::LoadU(DF(), rows[kFirst] + k);
#else
  const hn::FixedTag<float, 4> d4;
  VF v = hn::ResizeBitCast(DF(), hn::LoadU(d4, rows[kFirst] + k));
  v = hn::InsertBlock<1>(v, hn::LoadU(d4, rows[kFirst + 4] + k));
#if HWY_MAX_BYTES == 64
  v = hn::InsertBlock<2>(v, hn::LoadU(d4, rows[kFirst + 8] + k));
  v = hn::InsertBlock<3>(v, hn::LoadU(d4, rows[kFirst + 12] + k));
#endif
  return v;
#endif
}

// Transposes four k of one vector of rows: out[k * stride + row].
template <typename Rows>
HWY_INLINE void TransposeFour(const Rows& rows, size_t k, float* HWY_RESTRICT out, size_t stride) {
  const DF d;
  const hn::RepartitionToWide<DF> dw;
  const VF r0 = LoadBlocks<0>(rows, k);
  const VF r1 = LoadBlocks<1>(rows, k);
  const VF r2 = LoadBlocks<2>(rows, k);
  const VF r3 = LoadBlocks<3>(rows, k);
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

// What the epilogue adds to the product: nothing, C itself, a residual, or one row for all.
struct Addend {
  const float* data;
  size_t stride;
};
HWY_INLINE Addend EpilogueAddend(const MatmulArgs& args) {
  switch (args.epilogue) {
    case MatmulEpilogue::kOverwrite:
      return {nullptr, 0};
    case MatmulEpilogue::kAccumulate:
      return {args.c, args.c_stride};
    case MatmulEpilogue::kResidual:
      return {args.residual, args.residual_stride};
    case MatmulEpilogue::kBias:
      return {args.residual, 0};
  }
  return {nullptr, 0};
}

HWY_INLINE float* AlignUp(void* p) {
  const uintptr_t beyond = reinterpret_cast<uintptr_t>(p) % 64;
  return reinterpret_cast<float*>(static_cast<std::byte*>(p) + (64 - beyond) % 64);
}

}  // namespace matmul
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
