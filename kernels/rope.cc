#include "kernels/rope.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rope.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Complex multiplication of the pairs in x by those in t, or by their conjugates.
template <bool kConjugate, class V>
HWY_INLINE V Rotate(V x, V t) {
  const V cosine = hn::DupEven(t);
  V sine = hn::DupOdd(t);
  if constexpr (kConjugate) sine = hn::Neg(sine);
  return hn::MulAddSub(x, cosine, hn::Mul(hn::Reverse2(hn::ScalableTag<float>(), x), sine));
}

template <bool kConjugate>
void RopeImpl(Mat<const float> table, int32_t first, std::span<const int32_t> positions,
              Mat<float> x) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const size_t head_dim = table.cols;
  const size_t whole = head_dim - head_dim % lanes;
  for (size_t r = 0; r < x.rows; ++r) {
    const float* HWY_RESTRICT t = table.Row(static_cast<size_t>(positions[r] - first));
    float* HWY_RESTRICT row = x.Row(r);
    for (size_t head = 0; head < x.cols; head += head_dim) {
      for (size_t c = 0; c < whole; c += lanes) {
        const auto y = Rotate<kConjugate>(hn::LoadU(d, row + head + c), hn::LoadU(d, t + c));
        hn::StoreU(y, d, row + head + c);
      }
      if (const size_t rest = head_dim - whole; rest != 0) {
        const auto y = Rotate<kConjugate>(hn::LoadN(d, row + head + whole, rest),
                                          hn::LoadN(d, t + whole, rest));
        hn::StoreN(y, d, row + head + whole, rest);
      }
    }
  }
}

void RopeForwardImpl(Mat<const float> table, int32_t first, std::span<const int32_t> positions,
                     Mat<float> x) {
  RopeImpl<false>(table, first, positions, x);
}

void RopeBackwardImpl(Mat<const float> table, int32_t first, std::span<const int32_t> positions,
                      Mat<float> dx) {
  RopeImpl<true>(table, first, positions, dx);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {

HWY_EXPORT(RopeForwardImpl);
HWY_EXPORT(RopeBackwardImpl);

void RopeTable(double theta, size_t first, Mat<float> table) {
  for (size_t c = 0; c < table.cols; c += 2) {
    const double exponent = static_cast<double>(c) / static_cast<double>(table.cols);
    const double frequency = std::pow(theta, -exponent);
    for (size_t r = 0; r < table.rows; ++r) {
      const double angle = static_cast<double>(first + r) * frequency;
      table.Row(r)[c] = static_cast<float>(std::cos(angle));
      table.Row(r)[c + 1] = static_cast<float>(std::sin(angle));
    }
  }
}

void RopeForward(Mat<const float> table, int32_t first, std::span<const int32_t> positions,
                 Mat<float> x) {
  HWY_DYNAMIC_DISPATCH(RopeForwardImpl)(table, first, positions, x);
}

void RopeBackward(Mat<const float> table, int32_t first, std::span<const int32_t> positions,
                  Mat<float> dx) {
  HWY_DYNAMIC_DISPATCH(RopeBackwardImpl)(table, first, positions, dx);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
