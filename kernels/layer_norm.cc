#include "kernels/layer_norm.h"

#include <cmath>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/layer_norm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

HWY_INLINE float RowMean(DF d, const float* x, size_t size) {
  const VF sum = Fold(
      d, x, size, hn::Zero(d), 0.0f, [](DF, VF acc, VF v) HWY_ATTR { return hn::Add(acc, v); },
      [](VF a, VF b) HWY_ATTR { return hn::Add(a, b); });
  return hn::ReduceSum(d, sum) / static_cast<float>(size);
}

// Mean of (x - mean)^2; a partial vector is filled up with the mean.
HWY_INLINE float RowVariance(DF d, const float* x, size_t size, float mean) {
  const VF sum = Fold(
      d, x, size, hn::Zero(d), mean,
      [mean](DF tag, VF acc, VF v) HWY_ATTR {
        const VF centered = hn::Sub(v, hn::Set(tag, mean));
        return hn::MulAdd(centered, centered, acc);
      },
      [](VF a, VF b) HWY_ATTR { return hn::Add(a, b); });
  return hn::ReduceSum(d, sum) / static_cast<float>(size);
}

void Forward(Mat<const float> x_rows, const float* w, const float* b, float eps, Mat<float> y_rows,
             float* mean_out, float* rstd_out) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  const size_t size = x_rows.cols;
  for (size_t r = 0; r < x_rows.rows; ++r) {
    const float* x = x_rows.Row(r);
    float* y = y_rows.Row(r);
    const float mean = RowMean(d, x, size);
    const float rstd = 1.0f / std::sqrt(RowVariance(d, x, size, mean) + eps);
    if (mean_out != nullptr) mean_out[r] = mean;
    if (rstd_out != nullptr) rstd_out[r] = rstd;
    const VF mean_v = hn::Set(d, mean);
    const VF rstd_v = hn::Set(d, rstd);
    size_t c = 0;
    for (; c + lanes <= size; c += lanes) {
      const VF xhat = hn::Mul(hn::Sub(hn::LoadU(d, x + c), mean_v), rstd_v);
      hn::StoreU(hn::MulAdd(xhat, hn::LoadU(d, w + c), hn::LoadU(d, b + c)), d, y + c);
    }
    if (c < size) {
      const size_t n = size - c;
      const VF xhat = hn::Mul(hn::Sub(hn::LoadN(d, x + c, n), mean_v), rstd_v);
      hn::StoreN(hn::MulAdd(xhat, hn::LoadN(d, w + c, n), hn::LoadN(d, b + c, n)), d, y + c, n);
    }
  }
}

struct BackwardArgs {
  Mat<const float> x;
  const float* w;
  const float* mean;
  const float* rstd;
  Mat<const float> dy;
  Mat<float> dx;
  float* dw;                  // or null
  float* db;                  // or null
  Mat<const float> residual;  // or null data
};

// dx = rstd g - (rstd mean_c g) - xhat (rstd mean_c(g xhat)): the factors of one row.
struct RowFactors {
  float mean, rstd, shift, slope;
};

HWY_INLINE RowFactors RowSums(DF d, const BackwardArgs& args, size_t r) {
  const size_t lanes = hn::Lanes(d);
  const size_t size = args.x.cols;
  const float* x = args.x.Row(r);
  const float* dy = args.dy.Row(r);
  const VF mean = hn::Set(d, args.mean[r]);
  VF g0 = hn::Zero(d);
  VF g1 = hn::Zero(d);
  VF gx0 = hn::Zero(d);
  VF gx1 = hn::Zero(d);
  size_t c = 0;
  for (; c + 2 * lanes <= size; c += 2 * lanes) {
    const VF a = hn::Mul(hn::LoadU(d, dy + c), hn::LoadU(d, args.w + c));
    const VF b = hn::Mul(hn::LoadU(d, dy + c + lanes), hn::LoadU(d, args.w + c + lanes));
    g0 = hn::Add(g0, a);
    g1 = hn::Add(g1, b);
    gx0 = hn::MulAdd(a, hn::Sub(hn::LoadU(d, x + c), mean), gx0);
    gx1 = hn::MulAdd(b, hn::Sub(hn::LoadU(d, x + c + lanes), mean), gx1);
  }
  for (; c < size; c += lanes) {
    const size_t n = HWY_MIN(lanes, size - c);
    const VF a = hn::Mul(hn::LoadN(d, dy + c, n), hn::LoadN(d, args.w + c, n));
    g0 = hn::Add(g0, a);
    gx0 = hn::MulAdd(a, hn::Sub(hn::LoadN(d, x + c, n), mean), gx0);
  }
  const float rstd = args.rstd[r];
  const float scale = rstd / static_cast<float>(size);
  return {args.mean[r], rstd, scale * hn::ReduceSum(d, hn::Add(g0, g1)),
          scale * rstd * hn::ReduceSum(d, hn::Add(gx0, gx1))};
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

// One vector of columns of kRows rows. The parameters' gradients stay in registers meanwhile.
template <size_t kRows>
HWY_INLINE void BackwardColumns(DF d, const BackwardArgs& args, const RowFactors* rows, size_t r,
                                size_t c, size_t n) {
  const VF w = LoadPart(d, args.w + c, n);
  VF dw = args.dw != nullptr ? LoadPart(d, args.dw + c, n) : hn::Zero(d);
  VF db = args.db != nullptr ? LoadPart(d, args.db + c, n) : hn::Zero(d);
  for (size_t i = 0; i < kRows; ++i) {
    const VF dy = LoadPart(d, args.dy.Row(r + i) + c, n);
    const VF centered = hn::Sub(LoadPart(d, args.x.Row(r + i) + c, n), hn::Set(d, rows[i].mean));
    const VF xhat = hn::Mul(centered, hn::Set(d, rows[i].rstd));
    dw = hn::MulAdd(dy, xhat, dw);
    db = hn::Add(dy, db);
    VF dx = hn::MulSub(hn::Mul(dy, w), hn::Set(d, rows[i].rstd), hn::Set(d, rows[i].shift));
    dx = hn::NegMulAdd(xhat, hn::Set(d, rows[i].slope), dx);
    if (args.residual.data != nullptr) {
      dx = hn::Add(dx, LoadPart(d, args.residual.Row(r + i) + c, n));
    }
    StorePart(dx, d, args.dx.Row(r + i) + c, n);
  }
  if (args.dw != nullptr) StorePart(dw, d, args.dw + c, n);
  if (args.db != nullptr) StorePart(db, d, args.db + c, n);
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

void Backward(Mat<const float> x, const float* w, const float* mean, const float* rstd,
              Mat<const float> dy, Mat<float> dx, float* dw, float* db, Mat<const float> residual) {
  const DF d;
  const BackwardArgs args{x, w, mean, rstd, dy, dx, dw, db, residual};
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

void LayerNormForward(Mat<const float> x, std::span<const float> w, std::span<const float> b,
                      float eps, Mat<float> y, std::span<float> mean, std::span<float> rstd) {
  HWY_DYNAMIC_DISPATCH(Forward)
  (x, w.data(), b.data(), eps, y, DataOrNull(mean), DataOrNull(rstd));
}

void LayerNormBackward(Mat<const float> x, std::span<const float> w, std::span<const float> mean,
                       std::span<const float> rstd, Mat<const float> dy, Mat<float> dx,
                       std::span<float> dw, std::span<float> db, Mat<const float> residual) {
  HWY_DYNAMIC_DISPATCH(Backward)
  (x, w.data(), mean.data(), rstd.data(), dy, dx, DataOrNull(dw), DataOrNull(db), residual);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
