#include "kernels/bfloat16.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/bfloat16.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/bfloat16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

void RoundAll(const float* from, BFloat16* to, size_t size) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= size; i += lanes) bf16::Store(d, hn::LoadU(d, from + i), to + i);
  if (i < size) bf16::StoreN(d, hn::LoadN(d, from + i, size - i), to + i, size - i);
}

void WidenAll(const BFloat16* from, float* to, size_t size) { bf16::WidenRange(from, to, size); }

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {

HWY_EXPORT(RoundAll);
HWY_EXPORT(WidenAll);

}  // namespace

void RoundToBFloat16(std::span<const float> from, std::span<BFloat16> to) {
  HWY_DYNAMIC_DISPATCH(RoundAll)(from.data(), to.data(), from.size());
}

void WidenBFloat16(std::span<const BFloat16> from, std::span<float> to) {
  HWY_DYNAMIC_DISPATCH(WidenAll)(from.data(), to.data(), from.size());
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
