#include "kernels/math.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/math.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/loop-inl.h"
#include "kernels/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;

void ExpArray(const float* x, float* y, size_t n) {
  Map(DF(), x, y, n, [](DF d, auto v) HWY_ATTR { return Exp(d, v); });
}

void LogArray(const float* x, float* y, size_t n) {
  Map(DF(), x, y, n, [](DF d, auto v) HWY_ATTR { return Log(d, v); });
}

void SigmoidArray(const float* x, float* y, size_t n) {
  Map(DF(), x, y, n, [](DF d, auto v) HWY_ATTR { return Sigmoid(d, v); });
}

void TanhArray(const float* x, float* y, size_t n) {
  Map(DF(), x, y, n, [](DF d, auto v) HWY_ATTR { return Tanh(d, v); });
}

void SiluArray(const float* x, float* y, size_t n) {
  Map(DF(), x, y, n, [](DF d, auto v) HWY_ATTR { return Silu(d, v); });
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {

HWY_EXPORT(ExpArray);
HWY_EXPORT(LogArray);
HWY_EXPORT(SigmoidArray);
HWY_EXPORT(TanhArray);
HWY_EXPORT(SiluArray);

}  // namespace

void Exp(std::span<const float> x, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(ExpArray)(x.data(), y.data(), y.size());
}

void Log(std::span<const float> x, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(LogArray)(x.data(), y.data(), y.size());
}

void Sigmoid(std::span<const float> x, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(SigmoidArray)(x.data(), y.data(), y.size());
}

void Tanh(std::span<const float> x, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(TanhArray)(x.data(), y.data(), y.size());
}

void Silu(std::span<const float> x, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(SiluArray)(x.data(), y.data(), y.size());
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
