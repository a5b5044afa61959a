// Copies operands as bf16. A becomes rows with consecutive k; B panels of pairs: for every two
// steps of k and every column the two values side by side. Steps beyond the last are zeros.
#if defined(LANEWISE_KERNELS_MATMUL_BF16_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_MATMUL_BF16_PACK_INL_H_
#undef LANEWISE_KERNELS_MATMUL_BF16_PACK_INL_H_
#else
#define LANEWISE_KERNELS_MATMUL_BF16_PACK_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/matmul.h"
#include "kernels/matmul/ahead.h"
#include "kernels/matmul/parts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

using DU = hn::RebindToUnsigned<DF>;
using VU = hn::Vec<DU>;

// Elements as bf16 in the upper half of each lane.
HWY_INLINE VU UpperHalf(const float* p) { return bf16::UpperHalf(DF(), hn::LoadU(DF(), p)); }
HWY_INLINE VU UpperHalf(const BFloat16* p) { return hn::BitCast(DU(), LoadWide(p)); }
HWY_INLINE VU UpperHalfN(const float* p, size_t n) {
  return bf16::UpperHalf(DF(), hn::LoadN(DF(), p, n));
}
HWY_INLINE VU UpperHalfN(const BFloat16* p, size_t n) { return hn::BitCast(DU(), LoadWideN(p, n)); }
HWY_INLINE uint32_t UpperHalfOf(float x) {
  return hn::GetLane(bf16::UpperHalf(DF(), hn::Set(DF(), x))) & 0xFFFF0000U;
}
HWY_INLINE uint32_t UpperHalfOf(BFloat16 x) { return static_cast<uint32_t>(x.bits) << 16; }

// Two values as they lie in memory, the first one lower.
HWY_INLINE VU Pair(VU first, VU second) {
  return hn::Or(hn::ShiftRight<16>(first), hn::And(second, hn::Set(DU(), 0xFFFF0000U)));
}
HWY_INLINE uint32_t PairOf(uint32_t first, uint32_t second) { return (first >> 16) | second; }

// Whether the CPU rounds to bf16 itself. As its products do, it takes what is below 2^-126 for
// zero.
#undef LW_ROUNDS_ITSELF
#define LW_ROUNDS_ITSELF (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_ZEN4)
#if LW_ROUNDS_ITSELF
using D16 = hn::Repartition<uint16_t, DF>;

HWY_INLINE hn::Vec<D16> RoundBoth(VF first, VF second) {
  return hn::BitCast(D16(),
                     hn::OrderedDemote2To(hn::Repartition<hwy::bfloat16_t, DF>(), first, second));
}
// One vector of pairs of two rows.
HWY_INLINE VU PairRows(hn::Vec<D16> both) {
  alignas(64) static constexpr uint16_t kInterleaved[] = {
      0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return hn::BitCast(DU(), hn::TableLookupLanes(both, hn::SetTableIndices(D16(), kInterleaved)));
}
HWY_INLINE VU PairRows(const float* first, const float* second) {
  return PairRows(RoundBoth(hn::LoadU(DF(), first), hn::LoadU(DF(), second)));
}
HWY_INLINE VU PairRows(const BFloat16* first, const BFloat16* second) {
  const hn::Half<D16> half;
  return PairRows(hn::Combine(D16(), hn::LoadU(half, reinterpret_cast<const uint16_t*>(second)),
                              hn::LoadU(half, reinterpret_cast<const uint16_t*>(first))));
}
#else
template <typename T>
HWY_INLINE VU PairRows(const T* first, const T* second) {
  return Pair(UpperHalf(first), UpperHalf(second));
}
#endif

// One pair of steps of `columns` columns side by side. `second` null: that step is beyond the last.
template <typename T>
HWY_INLINE void PackPairsRow(const T* first, const T* second, size_t columns, size_t stored,
                             uint32_t* HWY_RESTRICT out) {
  const DU du;
  const size_t lanes = hn::Lanes(du);
  size_t j = 0;
  for (; j + lanes <= columns && second != nullptr; j += lanes) {
    hn::StoreU(PairRows(first + j, second + j), du, out + j);
  }
  for (; j < stored; j += lanes) {
    const size_t n = columns > j ? std::min(lanes, columns - j) : 0;
    VU pair = hn::Zero(du);
    if (n > 0) {
      pair = Pair(UpperHalfN(first + j, n),
                  second == nullptr ? hn::Zero(du) : UpperHalfN(second + j, n));
    }
    hn::StoreU(pair, du, out + j);
  }
}

#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
inline constexpr bool kCanTranspose = true;
#else
inline constexpr bool kCanTranspose = false;
HWY_INLINE void TransposeFour(const float* const*, size_t, float*, size_t) {}
#endif

// Whole groups of four pairs of weights that are contiguous in k; returns how many pairs.
HWY_INLINE size_t PackPairsAlongK(const BFloat16* b, size_t b_n, size_t columns, size_t pairs,
                                  size_t stored, uint32_t* HWY_RESTRICT out) {
  constexpr size_t kLanes = hn::MaxLanes(DF());
  size_t done = 0;
  for (size_t j = 0; j < stored; j += kLanes) {
    const float* rows[kLanes];
    for (size_t i = 0; i < kLanes; ++i) {
      rows[i] = reinterpret_cast<const float*>(b + std::min(j + i, columns - 1) * b_n);
    }
    for (done = 0; done + 4 <= pairs; done += 4) {
      TransposeFour(rows, done, reinterpret_cast<float*>(out + done * stored + j), stored);
    }
  }
  return done;
}
HWY_INLINE size_t PackPairsAlongK(const float*, size_t, size_t, size_t, size_t, uint32_t*) {
  return 0;
}

// Asks for the two rows of B that are packed eight pairs later: a panel's part of a row is too
// short for the CPU to see where the next one begins.
template <typename T>
HWY_INLINE void FetchPair(const T* b, size_t b_k, size_t columns, size_t pair, size_t steps) {
  constexpr size_t kPairsAhead = 8;
  const size_t row = 2 * (pair + kPairsAhead);
  if (row + 2 > steps) return;
  for (size_t j = 0; j < columns; j += kernels::matmul::kLineFloats * sizeof(float) / sizeof(T)) {
    kernels::matmul::PrefetchToL2(b + row * b_k + j);
    kernels::matmul::PrefetchToL2(b + (row + 1) * b_k + j);
  }
}

// A panel of `columns` columns of B and room for `stored` (whole vectors): `padded` steps of k, of
// which `steps` are there.
template <typename T>
HWY_INLINE void PackPairs(const T* b, size_t b_k, size_t b_n, size_t columns, size_t steps,
                          size_t padded, size_t stored, BFloat16* panel) {
  uint32_t* HWY_RESTRICT out = reinterpret_cast<uint32_t*>(panel);
  size_t pair = 0;
  if (b_n == 1) {
    for (; 2 * pair < steps; ++pair) {
      const T* first = b + 2 * pair * b_k;
      FetchPair(b, b_k, columns, pair, steps);
      PackPairsRow(first, 2 * pair + 1 < steps ? first + b_k : nullptr, columns, stored,
                   out + pair * stored);
    }
  } else {
    if (kCanTranspose && b_k == 1) {
      pair = PackPairsAlongK(b, b_n, columns, steps / 2, stored, out);
    }
    for (; 2 * pair < steps; ++pair) {
      for (size_t j = 0; j < stored; ++j) {
        const T* first = b + 2 * pair * b_k + std::min(j, columns - 1) * b_n;
        const uint32_t upper = 2 * pair + 1 < steps ? UpperHalfOf(first[b_k]) : 0;
        out[pair * stored + j] = PairOf(UpperHalfOf(first[0]), upper);
      }
    }
  }
  for (size_t i = pair * stored; i < padded / 2 * stored; ++i) out[i] = 0;
}

// Panels of one vector of columns each, packed side by side.
inline constexpr size_t kPanelsAtOnce = 4;

// That many whole panels of floats whose columns lie side by side: longer runs of each row than one
// panel after the other would read, which takes two thirds more time where B comes from L3.
HWY_INLINE void PackPanelsAtOnce(const float* b, size_t b_k, size_t steps, size_t padded,
                                 BFloat16* panels) {
  const DU du;
  const size_t lanes = hn::Lanes(du);
  const size_t panel = padded / 2 * lanes;
  uint32_t* HWY_RESTRICT out = reinterpret_cast<uint32_t*>(panels);
  for (size_t pair = 0; pair < padded / 2; ++pair, out += lanes) {
    const float* first = b + 2 * pair * b_k;
    FetchPair(b, b_k, kPanelsAtOnce * lanes, pair, steps);
    if (2 * pair + 1 < steps) {
      for (size_t i = 0; i < kPanelsAtOnce; ++i) {
        hn::StoreU(PairRows(first + i * lanes, first + b_k + i * lanes), du, out + i * panel);
      }
      continue;
    }
    for (size_t i = 0; i < kPanelsAtOnce; ++i) {
      const bool one = 2 * pair < steps;
      const bool two = 2 * pair + 1 < steps;
      const VU lower = one ? UpperHalf(first + i * lanes) : hn::Zero(du);
      const VU upper = two ? UpperHalf(first + b_k + i * lanes) : hn::Zero(du);
      hn::StoreU(Pair(lower, upper), du, out + i * panel);
    }
  }
}

// Rows of A that lie one beside the other (a transposed activation): pairs of steps of `lanes`
// pairs are transposed at a time.
HWY_INLINE size_t PackRowsAlongM(const float* a, size_t a_k, size_t rows, size_t steps,
                                 BFloat16* out, size_t out_row) {
  constexpr size_t kLanes = hn::MaxLanes(DF());
  constexpr size_t kMostRows = 32;
  HWY_ALIGN uint32_t pairs[kLanes * (kMostRows + kLanes)];
  constexpr size_t kStride = kMostRows + kLanes;
  const float* lines[kLanes];
  for (size_t i = 0; i < kLanes; ++i)
    lines[i] = reinterpret_cast<const float*>(pairs + i * kStride);
  size_t k = 0;
  for (; k + 2 * kLanes <= steps; k += 2 * kLanes) {
    for (size_t i = 0; i < kLanes; ++i) {
      const float* first = a + (k + 2 * i) * a_k;
      PackPairsRow(first, first + a_k, rows, CeilDiv(rows, kLanes) * kLanes, pairs + i * kStride);
    }
    for (size_t r = 0; r < rows; r += 4) {
      TransposeFour(lines, r, reinterpret_cast<float*>(out + r * out_row + k), out_row / 2);
    }
  }
  return k;
}

// Rows of A that lie one beside the other as panels: for every pair of steps the pairs of kTileRows
// rows. `panel`: elements from one panel to the next.
HWY_INLINE void PackBf16Panels(const float* a, size_t a_k, size_t rows, size_t steps, size_t padded,
                               BFloat16* out, size_t panel) {
  constexpr size_t kMostRows = 32;
  const size_t lanes = hn::Lanes(DF());
  const size_t stored = CeilDiv(rows, lanes) * lanes;
  HWY_ALIGN uint32_t pairs[kMostRows + kTileRows + hn::MaxLanes(DF())] = {};
  for (size_t k = 0; k < padded; k += 2, out += 2 * kTileRows) {
    if (k < steps) {
      const float* first = a + k * a_k;
      PackPairsRow(first, k + 1 < steps ? first + a_k : nullptr, rows, stored, pairs);
    } else {
      std::fill_n(pairs, stored, 0U);
    }
    for (size_t r = 0; r < rows; r += kTileRows) {
      hwy::CopyBytes<kTileRows * sizeof(uint32_t)>(pairs + r, out + r / kTileRows * panel);
    }
  }
}

// `rows` rows of A of any strides, `padded` steps of k, of which `steps` are there.
HWY_INLINE void PackBf16Rows(const float* a, size_t a_row, size_t a_k, size_t rows, size_t steps,
                             size_t padded, BFloat16* out, size_t out_row) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  size_t common = 0;  // steps that all rows have
  if (kCanTranspose && a_row == 1 && a_k != 1) {
    common = PackRowsAlongM(a, a_k, rows, steps, out, out_row);
  }
  for (size_t r = 0; r < rows; ++r) {
    const float* from = a + r * a_row;
    BFloat16* to = out + r * out_row;
    size_t k = common;
    if (a_k == 1) {
#if LW_ROUNDS_ITSELF
      for (; k + 2 * lanes <= steps; k += 2 * lanes) {
        hn::StoreU(RoundBoth(hn::LoadU(d, from + k), hn::LoadU(d, from + k + lanes)), D16(),
                   reinterpret_cast<uint16_t*>(to + k));
      }
#endif
      for (; k + lanes <= steps; k += lanes) bf16::Store(d, hn::LoadU(d, from + k), to + k);
    }
    for (; k < steps; ++k) {
      to[k].bits = static_cast<uint16_t>(UpperHalfOf(from[k * a_k]) >> 16);
    }
    for (; k < padded; ++k) to[k].bits = 0;
  }
}

}  // namespace matmul
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
