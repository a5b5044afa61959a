#include "kernels/rms_norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rms_norm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/norm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace {

void Forward(Mat<const float> x, const float* w, float eps, Mat<float> y, float* rstd) {
  norm::Forward<false>({x, w, nullptr, eps, y, nullptr, rstd});
}

void Backward(Mat<const float> x, const float* w, const float* rstd, Mat<const float> dy,
              Mat<float> dx, float* dw, Mat<const float> residual) {
  norm::Backward<false>({x, w, nullptr, rstd, dy, dx, dw, nullptr, residual});
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {

HWY_EXPORT(Forward);
HWY_EXPORT(Backward);

}  // namespace

void RmsNormForward(Mat<const float> x, std::span<const float> w, float eps, Mat<float> y,
                    std::span<float> rstd) {
  HWY_DYNAMIC_DISPATCH(Forward)(x, w.data(), eps, y, DataOrNull(rstd));
}

void RmsNormBackward(Mat<const float> x, std::span<const float> w, std::span<const float> rstd,
                     Mat<const float> dy, Mat<float> dx, std::span<float> dw,
                     Mat<const float> residual) {
  HWY_DYNAMIC_DISPATCH(Backward)
  (x, w.data(), rstd.data(), dy, dx, DataOrNull(dw), OrNull(residual));
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
