#include "kernels/rms_norm.h"

#include <cmath>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rms_norm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

HWY_INLINE float RowMeanSquare(DF d, const float* x, size_t size) {
  const VF sum = Fold(
      d, x, size, hn::Zero(d), 0.0f,
      [](DF, VF acc, VF v) HWY_ATTR { return hn::MulAdd(v, v, acc); },
      [](VF a, VF b) HWY_ATTR { return hn::Add(a, b); });
  return hn::ReduceSum(d, sum) / static_cast<float>(size);
}

void Forward(Mat<const float> x_rows, const float* w, float eps, Mat<float> y, float* rstd_out) {
  const DF d;
  for (size_t r = 0; r < x_rows.rows; ++r) {
    const float* x = x_rows.Row(r);
    const float rstd = 1.0f / std::sqrt(RowMeanSquare(d, x, x_rows.cols) + eps);
    if (rstd_out != nullptr) rstd_out[r] = rstd;
    Map(d, x, w, y.Row(r), x_rows.cols,
        [rstd](DF tag, VF a, VF b) HWY_ATTR { return hn::Mul(hn::Mul(a, hn::Set(tag, rstd)), b); });
  }
}

struct BackwardArgs {
  Mat<const float> x;
  const float* w;
  const float* rstd;
  Mat<const float> dy;
  Mat<float> dx;
  float* dw;                  // or null
  Mat<const float> residual;  // or null data
};

// dx = rstd g - xhat (rstd mean_c(g xhat)): the factors of one row.
struct RowFactors {
  float rstd, slope;
};

HWY_INLINE RowFactors RowSums(DF d, const BackwardArgs& args, size_t r) {
  const size_t lanes = hn::Lanes(d);
  const size_t size = args.x.cols;
  const float* x = args.x.Row(r);
  const float* dy = args.dy.Row(r);
  const float* dx = args.dx.Row(r);
  VF sum0 = hn::Zero(d);
  VF sum1 = hn::Zero(d);
  size_t c = 0;
  for (; c + 2 * lanes <= size; c += 2 * lanes) {
    // Row after row the lines of dx can be fetched in time; the writes come from four rows in turn.
    hwy::Prefetch(dx + c);
    hwy::Prefetch(dx + c + lanes);
    const VF a = hn::Mul(hn::LoadU(d, dy + c), hn::LoadU(d, args.w + c));
    const VF b = hn::Mul(hn::LoadU(d, dy + c + lanes), hn::LoadU(d, args.w + c + lanes));
    sum0 = hn::MulAdd(a, hn::LoadU(d, x + c), sum0);
    sum1 = hn::MulAdd(b, hn::LoadU(d, x + c + lanes), sum1);
  }
  for (; c < size; c += lanes) {
    const size_t n = HWY_MIN(lanes, size - c);
    const VF a = hn::Mul(hn::LoadN(d, dy + c, n), hn::LoadN(d, args.w + c, n));
    sum0 = hn::MulAdd(a, hn::LoadN(d, x + c, n), sum0);
  }
  const float rstd = args.rstd[r];
  const float mean = hn::ReduceSum(d, hn::Add(sum0, sum1)) / static_cast<float>(size);
  return {rstd, rstd * rstd * mean};
}

// n = 0 stands for a full vector, so that full vectors do without masks.
HWY_INLINE VF LoadPart(DF d, const float* p, size_t n) {
  return n == 0 ? hn::LoadU(d, p) : hn::LoadN(d, p, n);
}

HWY_INLINE void StorePart(VF v, DF d, float* p, size_t n) {
  if (n == 0) {
    hn::StoreU(v, d, p);
  } else {
    hn::StoreN(v, d, p, n);
  }
}

// One vector of columns of kRows rows. The parameter's gradient stays in a register meanwhile.
template <size_t kRows>
HWY_INLINE void BackwardColumns(DF d, const BackwardArgs& args, const RowFactors* rows, size_t r,
                                size_t c, size_t n) {
  const VF w = LoadPart(d, args.w + c, n);
  VF dw = args.dw != nullptr ? LoadPart(d, args.dw + c, n) : hn::Zero(d);
  for (size_t i = 0; i < kRows; ++i) {
    const VF dy = LoadPart(d, args.dy.Row(r + i) + c, n);
    const VF xhat = hn::Mul(LoadPart(d, args.x.Row(r + i) + c, n), hn::Set(d, rows[i].rstd));
    dw = hn::MulAdd(dy, xhat, dw);
    VF dx = hn::Mul(hn::Mul(dy, w), hn::Set(d, rows[i].rstd));
    dx = hn::NegMulAdd(xhat, hn::Set(d, rows[i].slope), dx);
    if (args.residual.data != nullptr) {
      dx = hn::Add(dx, LoadPart(d, args.residual.Row(r + i) + c, n));
    }
    StorePart(dx, d, args.dx.Row(r + i) + c, n);
  }
  if (args.dw != nullptr) StorePart(dw, d, args.dw + c, n);
}

template <size_t kRows>
HWY_INLINE void BackwardRows(DF d, const BackwardArgs& args, size_t r) {
  RowFactors rows[kRows];
  for (size_t i = 0; i < kRows; ++i) rows[i] = RowSums(d, args, r + i);
  const size_t lanes = hn::Lanes(d);
  const size_t size = args.x.cols;
  size_t c = 0;
  for (; c + lanes <= size; c += lanes) BackwardColumns<kRows>(d, args, rows, r, c, 0);
  if (c < size) BackwardColumns<kRows>(d, args, rows, r, c, size - c);
}

void Backward(Mat<const float> x, const float* w, const float* rstd, Mat<const float> dy,
              Mat<float> dx, float* dw, Mat<const float> residual) {
  const DF d;
  const BackwardArgs args{x, w, rstd, dy, dx, dw, residual};
  size_t r = 0;
  for (; r + 4 <= args.x.rows; r += 4) BackwardRows<4>(d, args, r);
  for (; r < args.x.rows; ++r) BackwardRows<1>(d, args, r);
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

float* DataOrNull(std::span<float> v) { return v.empty() ? nullptr : v.data(); }

}  // namespace

void RmsNormForward(Mat<const float> x, std::span<const float> w, float eps, Mat<float> y,
                    std::span<float> rstd) {
  HWY_DYNAMIC_DISPATCH(Forward)(x, w.data(), eps, y, DataOrNull(rstd));
}

void RmsNormBackward(Mat<const float> x, std::span<const float> w, std::span<const float> rstd,
                     Mat<const float> dy, Mat<float> dx, std::span<float> dw,
                     Mat<const float> residual) {
  HWY_DYNAMIC_DISPATCH(Backward)
  (x, w.data(), rstd.data(), dy, dx, DataOrNull(dw), residual);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
