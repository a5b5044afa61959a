#include "kernels/dropout.h"

#include <cmath>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dropout.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/random-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::RebindToFloat<PhiloxTag>;

void DropArray(const float* x, float* y, size_t size, uint32_t threshold, float scale,
               const RandomKey& key, uint64_t index) {
  ForRandomBits(key, index, size, [=](size_t offset, auto bits, size_t count) HWY_ATTR {
    const DF d;
    const PhiloxTag du;
    const auto keep = hn::RebindMask(d, hn::Ge(bits, hn::Set(du, threshold)));
    if (count == hn::Lanes(d)) {
      const auto v = hn::Mul(hn::LoadU(d, x + offset), hn::Set(d, scale));
      hn::StoreU(hn::IfThenElseZero(keep, v), d, y + offset);
    } else {
      const auto v = hn::Mul(hn::LoadN(d, x + offset, count), hn::Set(d, scale));
      hn::StoreN(hn::IfThenElseZero(keep, v), d, y + offset, count);
    }
  });
}

void DropRows(Mat<const float> x, float p, const RandomKey& key, uint64_t first_row, Mat<float> y) {
  const auto threshold = static_cast<uint32_t>(std::ldexp(static_cast<double>(p), 32));
  const float scale = 1.0f / (1.0f - p);
  if (x.stride == x.cols && y.stride == y.cols) {
    return DropArray(x.data, y.data, x.rows * x.cols, threshold, scale, key, first_row * x.cols);
  }
  for (size_t r = 0; r < x.rows; ++r) {
    DropArray(x.Row(r), y.Row(r), x.cols, threshold, scale, key, (first_row + r) * x.cols);
  }
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {

HWY_EXPORT(DropRows);

}  // namespace

void DropoutForward(Mat<const float> x, float p, const RandomKey& key, uint64_t first_row,
                    Mat<float> y) {
  HWY_DYNAMIC_DISPATCH(DropRows)(x, p, key, first_row, y);
}

void DropoutBackward(Mat<const float> dy, float p, const RandomKey& key, uint64_t first_row,
                     Mat<float> dx) {
  HWY_DYNAMIC_DISPATCH(DropRows)(dy, p, key, first_row, dx);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
