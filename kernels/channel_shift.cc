// The one-row shift of the channel mix; its contract is in kernels/token_shift.h.
#include <algorithm>
#include <cstddef>

#include "kernels/token_shift.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/channel_shift.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kCols = 256;
using D = hn::CappedTag<float, kCols>;
using V = hn::Vec<D>;

// Lanes [0, valid) of a partial vector (kTail), or a whole one.
template <bool kTail>
HWY_INLINE V Load(D d, const float* from, size_t valid) {
  if constexpr (kTail) return hn::LoadN(d, from, valid);
  return hn::LoadU(d, from);
}

template <bool kTail>
HWY_INLINE void Store(V v, D d, float* to, size_t valid) {
  if constexpr (kTail) {
    hn::StoreN(v, d, to, valid);
  } else {
    hn::StoreU(v, d, to);
  }
}

// sigmoid(mix) and sigmoid(-mix) of kCols columns.
struct Mix {
  HWY_ALIGN float m[kCols];
  HWY_ALIGN float rest[kCols];
};

void Prepare(D d, const float* mix, size_t count, Mix& out) {
  for (size_t i = 0; i < count; i += hn::Lanes(d)) {
    const V raw = hn::LoadN(d, mix + i, count - i);
    hn::Store(Sigmoid(d, raw), d, out.m + i);
    hn::Store(Sigmoid(d, hn::Neg(raw)), d, out.rest + i);
  }
}

const float* Before(Mat<const float> n, Mat<const float> carried, const float* zeros, size_t t,
                    size_t col) {
  if (t > 0) return n.Row(t - 1) + col;
  return carried.data == nullptr ? zeros : carried.Row(0) + col;
}

template <bool kTail>
HWY_INLINE void ForwardVector(D d, const Mix& mix, const float* n, const float* before, float* x,
                              size_t i, size_t valid) {
  const V old = Load<kTail>(d, before + i, valid);
  const V difference = hn::Sub(Load<kTail>(d, n + i, valid), old);
  Store<kTail>(hn::MulAdd(hn::Load(d, mix.m + i), difference, old), d, x + i, valid);
}

void Forward(Mat<const float> n, Mat<const float> carried, const float* raw, size_t t0, size_t t1,
             Mat<float> x) {
  HWY_ALIGN float zeros[kCols] = {};
  Mix mix;
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t col = 0; col < n.cols; col += kCols) {
    const size_t count = std::min(kCols, n.cols - col);
    const size_t whole = count / N * N;
    Prepare(d, raw + col, count, mix);
    for (size_t t = t0; t < t1; ++t) {
      const float* const before = Before(n, carried, zeros, t, col);
      const float* const now = n.Row(t) + col;
      float* const to = x.Row(t) + col;
      for (size_t i = 0; i < whole; i += N) ForwardVector<false>(d, mix, now, before, to, i, N);
      if (whole < count) ForwardVector<true>(d, mix, now, before, to, whole, count - whole);
    }
  }
}

// Row pointers at the first column of a chunk; next: dx one step later.
struct BackwardRow {
  const float *n, *before, *dx, *next, *residual;
  float* dn;
};

template <bool kTail>
HWY_INLINE void BackwardVector(D d, const Mix& mix, const BackwardRow& row, size_t i, size_t valid,
                               float* sum) {
  const V dx = Load<kTail>(d, row.dx + i, valid);
  V dn = Load<kTail>(d, row.residual + i, valid);
  dn = hn::MulAdd(hn::Load(d, mix.m + i), dx, dn);
  dn = hn::MulAdd(hn::Load(d, mix.rest + i), Load<kTail>(d, row.next + i, valid), dn);
  const V difference =
      hn::Sub(Load<kTail>(d, row.n + i, valid), Load<kTail>(d, row.before + i, valid));
  Store<kTail>(dn, d, row.dn + i, valid);
  hn::Store(hn::MulAdd(dx, difference, hn::Load(d, sum + i)), d, sum + i);
}

void Backward(Mat<const float> n, Mat<const float> carried, const float* raw, Mat<const float> dx,
              size_t t0, size_t t1, Mat<const float> residual, Mat<float> dn, float* sums) {
  HWY_ALIGN float zeros[kCols] = {};
  HWY_ALIGN float sum[kCols];
  Mix mix;
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t col = 0; col < n.cols; col += kCols) {
    const size_t count = std::min(kCols, n.cols - col);
    const size_t whole = count / N * N;
    Prepare(d, raw + col, count, mix);
    std::fill_n(sum, kCols, 0.0f);
    for (size_t t = t0; t < t1; ++t) {
      const BackwardRow row{n.Row(t) + col,
                            Before(n, carried, zeros, t, col),
                            dx.Row(t) + col,
                            t + 1 < dx.rows ? dx.Row(t + 1) + col : zeros,
                            residual.data == nullptr ? zeros : residual.Row(t) + col,
                            dn.Row(t) + col};
      for (size_t i = 0; i < whole; i += N) BackwardVector<false>(d, mix, row, i, N, sum);
      if (whole < count) BackwardVector<true>(d, mix, row, whole, count - whole, sum);
    }
    std::copy_n(sum, count, sums + col);
  }
}

void ParamGradients(const float* raw, Mat<const float> sums, float* grad) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t col = 0; col < sums.cols; col += N) {
    const size_t valid = std::min(N, sums.cols - col);
    V total = hn::Zero(d);
    for (size_t row = 0; row < sums.rows; ++row) {
      total = hn::Add(total, hn::LoadN(d, sums.Row(row) + col, valid));
    }
    const V mix = hn::LoadN(d, raw + col, valid);
    const V slope = hn::Mul(Sigmoid(d, mix), Sigmoid(d, hn::Neg(mix)));
    const V before = hn::LoadN(d, grad + col, valid);
    hn::StoreN(hn::MulAdd(total, slope, before), d, grad + col, valid);
  }
}

}  // namespace
}  // namespace lanewise::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {
HWY_EXPORT(Forward);
HWY_EXPORT(Backward);
HWY_EXPORT(ParamGradients);
}  // namespace

void ChannelShiftForward(Mat<const float> n, Mat<const float> carried, std::span<const float> mix,
                         size_t t0, size_t t1, Mat<float> x) {
  HWY_DYNAMIC_DISPATCH(Forward)(n, carried, mix.data(), t0, t1, x);
}

void ChannelShiftBackward(Mat<const float> n, Mat<const float> carried, std::span<const float> mix,
                          Mat<const float> dx, size_t t0, size_t t1, Mat<const float> residual,
                          Mat<float> dn, Mat<float> sums) {
  HWY_DYNAMIC_DISPATCH(Backward)
  (n, carried, mix.data(), dx, t0, t1, residual, dn, sums.data);
}

void ChannelShiftParamGradients(std::span<const float> mix, Mat<const float> sums,
                                std::span<float> grad) {
  HWY_DYNAMIC_DISPATCH(ParamGradients)(mix.data(), sums, grad.data());
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
