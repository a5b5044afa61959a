// Vectors of bf16 to and from float32.
#if defined(LANEWISE_KERNELS_BFLOAT16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_BFLOAT16_INL_H_
#undef LANEWISE_KERNELS_BFLOAT16_INL_H_
#else
#define LANEWISE_KERNELS_BFLOAT16_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/view.h"

// Whether this target multiplies pairs of bf16 and adds both products to one float32. Not
// HWY_NATIVE_DOT_BF16 on NEON: there Highway 1.2 takes it over from the target compiled before.
#undef LANEWISE_BF16_DOT
#if HWY_TARGET_IS_NEON
#define LANEWISE_BF16_DOT HWY_NEON_HAVE_F32_TO_BF16C
#elif HWY_HAVE_SCALABLE
#define LANEWISE_BF16_DOT 0
#else
#define LANEWISE_BF16_DOT HWY_NATIVE_DOT_BF16
#endif

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {

namespace bf16 {
namespace hn = hwy::HWY_NAMESPACE;
template <class DF>
using Half = hn::Rebind<uint16_t, DF>;

// The bf16 nearest to each lane in its upper half (ties to even; NaN stays NaN); the lower half is
// anything.
template <class DF>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<DF>> UpperHalf(DF d, hn::Vec<DF> x) {
  const hn::RebindToUnsigned<DF> du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(du, 0x7FFF)), odd);
  const auto quiet = hn::Or(bits, hn::Set(du, 0x400000));
  (void)d;
  return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), quiet, rounded);
}

template <class DF>
HWY_INLINE hn::Vec<Half<DF>> Round(DF d, hn::Vec<DF> x) {
  // Qualified: Highway has an UpperHalf too.
  return hn::TruncateTo(Half<DF>(), hn::ShiftRight<16>(bf16::UpperHalf(d, x)));
}
template <class DF>
HWY_INLINE void Store(DF d, hn::Vec<DF> x, BFloat16* p) {
  hn::StoreU(Round(d, x), Half<DF>(), reinterpret_cast<uint16_t*>(p));
}
template <class DF>
HWY_INLINE void StoreN(DF d, hn::Vec<DF> x, BFloat16* p, size_t n) {
  hn::StoreN(Round(d, x), Half<DF>(), reinterpret_cast<uint16_t*>(p), n);
}

template <class DF>
HWY_INLINE hn::Vec<DF> Widen(DF d, hn::Vec<Half<DF>> x) {
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(hn::RebindToUnsigned<DF>(), x)));
}
template <class DF>
HWY_INLINE hn::Vec<DF> Load(DF d, const BFloat16* p) {
  return Widen(d, hn::LoadU(Half<DF>(), reinterpret_cast<const uint16_t*>(p)));
}
template <class DF>
HWY_INLINE hn::Vec<DF> LoadN(DF d, const BFloat16* p, size_t n) {
  return Widen(d, hn::LoadN(Half<DF>(), reinterpret_cast<const uint16_t*>(p), n));
}

HWY_INLINE float Widen(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float wide;
  hwy::CopySameSize(&bits, &wide);
  return wide;
}

// to[i] = from[i].
HWY_INLINE void WidenRange(const BFloat16* from, float* HWY_RESTRICT to, size_t size) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= size; i += lanes) hn::StoreU(Load(d, from + i), d, to + i);
  if (i < size) hn::StoreN(LoadN(d, from + i, size - i), d, to + i, size - i);
}

}  // namespace bf16
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
