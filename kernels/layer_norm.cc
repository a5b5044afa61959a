#include "kernels/layer_norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/layer_norm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/norm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace {

void Forward(Mat<const float> x, const float* w, const float* b, float eps, Mat<float> y,
             float* mean, float* rstd) {
  norm::Forward<true>({x, w, b, eps, y, mean, rstd});
}

void Backward(Mat<const float> x, const float* w, const float* mean, const float* rstd,
              Mat<const float> dy, Mat<float> dx, float* dw, float* db, Mat<const float> residual) {
  norm::Backward<true>({x, w, mean, rstd, dy, dx, dw, db, residual});
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

void LayerNormForward(Mat<const float> x, std::span<const float> w, std::span<const float> b,
                      float eps, Mat<float> y, std::span<float> mean, std::span<float> rstd) {
  HWY_DYNAMIC_DISPATCH(Forward)
  (x, w.data(), b.data(), eps, y, DataOrNull(mean), DataOrNull(rstd));
}

void LayerNormBackward(Mat<const float> x, std::span<const float> w, std::span<const float> mean,
                       std::span<const float> rstd, Mat<const float> dy, Mat<float> dx,
                       std::span<float> dw, std::span<float> db, Mat<const float> residual) {
  HWY_DYNAMIC_DISPATCH(Backward)
  (x, w.data(), mean.data(), rstd.data(), dy, dx, DataOrNull(dw), DataOrNull(db), OrNull(residual));
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
