#include "kernels/layer_norm.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/layer_norm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

// Sums of the lanes of four vectors, to out[0..3]. Fewer steps than four sums, and they overlap.
HWY_INLINE void SumLanes(DF d, VF a, VF b, VF c, VF e, float* HWY_RESTRICT out) {
#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR
  out[0] = hn::ReduceSum(d, a);
  out[1] = hn::ReduceSum(d, b);
  out[2] = hn::ReduceSum(d, c);
  out[3] = hn::ReduceSum(d, e);
#else
  const hn::RepartitionToWide<DF> wide;
  // In each block of four lanes: (a0+a2, b0+b2, a1+a3, b1+b3), then (a, b, c, e).
  const VF ab = hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
  const VF ce = hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e));
  const auto ab_wide = hn::BitCast(wide, ab);
  const auto ce_wide = hn::BitCast(wide, ce);
  VF sums = hn::Add(hn::BitCast(d, hn::InterleaveLower(wide, ab_wide, ce_wide)),
                    hn::BitCast(d, hn::InterleaveUpper(wide, ab_wide, ce_wide)));
  if constexpr (HWY_MAX_BYTES >= 32) sums = hn::Add(sums, hn::SwapAdjacentBlocks(sums));
  if constexpr (HWY_MAX_BYTES >= 64) sums = hn::Add(sums, hn::ReverseBlocks(d, sums));
  const hn::CappedTag<float, 4> four;
  hn::StoreU(hn::ResizeBitCast(four, sums), four, out);
#endif
}

// kRows rows at a time, 4 or 1, with the same bits: a horizontal sum waits long for little work.
template <size_t kRows>
struct RowGroup {
  static_assert(kRows == 1 || kRows == 4);
  const float* x[4];
  float mean[4];
  float rstd[4];
};

// acc = f(row, acc, column, vector of its columns) for kRows rows at once, and the sums of their
// lanes. What a partial vector lacks is fill[row].
template <size_t kRows, class F>
HWY_INLINE void SumColumns(DF d, const RowGroup<kRows>& group, size_t size, const float* fill,
                           float* HWY_RESTRICT out, const F& f) {
  const size_t lanes = hn::Lanes(d);
  VF s0 = hn::Zero(d);
  VF s1 = hn::Zero(d);
  VF s2 = hn::Zero(d);
  VF s3 = hn::Zero(d);
  size_t c = 0;
  for (; c + lanes <= size; c += lanes) {
    s0 = f(0, s0, c, hn::LoadU(d, group.x[0] + c));
    if constexpr (kRows == 4) {
      s1 = f(1, s1, c, hn::LoadU(d, group.x[1] + c));
      s2 = f(2, s2, c, hn::LoadU(d, group.x[2] + c));
      s3 = f(3, s3, c, hn::LoadU(d, group.x[3] + c));
    }
  }
  if (c < size) {
    const size_t n = size - c;
    s0 = f(0, s0, c, hn::LoadNOr(hn::Set(d, fill[0]), d, group.x[0] + c, n));
    if constexpr (kRows == 4) {
      s1 = f(1, s1, c, hn::LoadNOr(hn::Set(d, fill[1]), d, group.x[1] + c, n));
      s2 = f(2, s2, c, hn::LoadNOr(hn::Set(d, fill[2]), d, group.x[2] + c, n));
      s3 = f(3, s3, c, hn::LoadNOr(hn::Set(d, fill[3]), d, group.x[3] + c, n));
    }
  }
  SumLanes(d, s0, s1, s2, s3, out);
}

template <bool kFetch, size_t kRows>
HWY_INLINE void Statistics(DF d, size_t size, float eps, Mat<float> y, RowGroup<kRows>& group) {
  constexpr float kZeros[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  const float inverse = 1.0f / static_cast<float>(size);
  float sums[4];
  SumColumns(d, group, size, kZeros, sums, [y](size_t i, VF acc, size_t c, VF v) HWY_ATTR {
    // Row after row the lines of y can be fetched in time; the writes come from all rows in turn.
    if constexpr (kFetch) hwy::Prefetch(y.Row(i) + c);
    return hn::Add(acc, v);
  });
  for (size_t i = 0; i < kRows; ++i) group.mean[i] = sums[i] * inverse;
  const float* mean = group.mean;
  SumColumns(d, group, size, mean, sums, [mean](size_t i, VF acc, size_t, VF v) HWY_ATTR {
    const VF centered = hn::Sub(v, hn::Set(DF(), mean[i]));
    return hn::MulAdd(centered, centered, acc);
  });
  const hn::CappedTag<float, 4> four;
  for (size_t i = 0; i < 4; i += hn::Lanes(four)) {
    const auto variance =
        hn::MulAdd(hn::LoadU(four, sums + i), hn::Set(four, inverse), hn::Set(four, eps));
    hn::StoreU(hn::Div(hn::Set(four, 1.0f), hn::Sqrt(variance)), four, group.rstd + i);
  }
}

template <size_t kRows>
HWY_INLINE VF Normalized(DF d, VF x, const RowGroup<kRows>& group, size_t i) {
  return hn::Mul(hn::Sub(x, hn::Set(d, group.mean[i])), hn::Set(d, group.rstd[i]));
}

// The columns of all rows at once: w and b are loaded once for them.
template <bool kFetch, size_t kRows>
HWY_INLINE void ForwardRows(DF d, Mat<const float> x, const float* w, const float* b, float eps,
                            Mat<float> y, float* mean, float* rstd, size_t r) {
  const size_t lanes = hn::Lanes(d);
  const size_t size = x.cols;
  RowGroup<kRows> group;
  for (size_t i = 0; i < kRows; ++i) group.x[i] = x.Row(r + i);
  Statistics<kFetch>(d, size, eps, y.Rows(r, kRows), group);
  for (size_t i = 0; i < kRows; ++i) {
    if (mean != nullptr) mean[r + i] = group.mean[i];
    if (rstd != nullptr) rstd[r + i] = group.rstd[i];
  }
  float* const y0 = y.Row(r);
  size_t c = 0;
  for (; c + lanes <= size; c += lanes) {
    const VF wv = hn::LoadU(d, w + c);
    const VF bv = hn::LoadU(d, b + c);
    for (size_t i = 0; i < kRows; ++i) {
      const VF xhat = Normalized(d, hn::LoadU(d, group.x[i] + c), group, i);
      hn::StoreU(hn::MulAdd(xhat, wv, bv), d, y0 + i * y.stride + c);
    }
  }
  if (c < size) {
    const size_t n = size - c;
    const VF wv = hn::LoadN(d, w + c, n);
    const VF bv = hn::LoadN(d, b + c, n);
    for (size_t i = 0; i < kRows; ++i) {
      const VF xhat = Normalized(d, hn::LoadN(d, group.x[i] + c, n), group, i);
      hn::StoreN(hn::MulAdd(xhat, wv, bv), d, y0 + i * y.stride + c, n);
    }
  }
}

template <bool kFetch>
void ForwardAll(Mat<const float> x, const float* w, const float* b, float eps, Mat<float> y,
                float* mean, float* rstd) {
  const DF d;
  size_t r = 0;
  for (; r + 4 <= x.rows; r += 4) ForwardRows<kFetch, 4>(d, x, w, b, eps, y, mean, rstd, r);
  for (; r < x.rows; ++r) ForwardRows<kFetch, 1>(d, x, w, b, eps, y, mean, rstd, r);
}

// More floats than this are not expected in the second-level cache.
constexpr size_t kFetchFloats = size_t{1} << 17;

void Forward(Mat<const float> x, const float* w, const float* b, float eps, Mat<float> y,
             float* mean, float* rstd) {
  if (x.rows * x.cols > kFetchFloats) {
    ForwardAll<true>(x, w, b, eps, y, mean, rstd);
  } else {
    ForwardAll<false>(x, w, b, eps, y, mean, rstd);
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
  const float* dx = args.dx.Row(r);
  const VF mean = hn::Set(d, args.mean[r]);
  VF g0 = hn::Zero(d);
  VF g1 = hn::Zero(d);
  VF gx0 = hn::Zero(d);
  VF gx1 = hn::Zero(d);
  size_t c = 0;
  for (; c + 2 * lanes <= size; c += 2 * lanes) {
    // Row after row the lines of dx can be fetched in time; the writes come from four rows in turn.
    hwy::Prefetch(dx + c);
    hwy::Prefetch(dx + c + lanes);
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
