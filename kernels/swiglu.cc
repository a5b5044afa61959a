#include "kernels/swiglu.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/swiglu.cc"
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
using VF = hn::Vec<DF>;

void ForwardRows(Mat<const float> gate_up, Mat<float> h) {
  const size_t width = h.cols;
  for (size_t r = 0; r < h.rows; ++r) {
    const float* gate = gate_up.Row(r);
    Map(DF(), gate, gate + width, h.Row(r), width,
        // The backward pass has the sigmoid and gives the same bits; Silu would round once less.
        [](DF d, VF g, VF u) HWY_ATTR { return hn::Mul(hn::Mul(g, Sigmoid(d, g)), u); });
  }
}

// The three results of one vector; h is not needed by every caller and then costs nothing.
HWY_INLINE void BackwardLanes(DF d, VF g, VF u, VF dh, VF& dg, VF& du, VF& h) {
  const VF one = hn::Set(d, 1.0f);
  const VF s = Sigmoid(d, g);
  const VF silu = hn::Mul(g, s);
  const VF slope = hn::Mul(s, hn::MulAdd(g, hn::Sub(one, s), one));
  dg = hn::Mul(hn::Mul(dh, u), slope);
  du = hn::Mul(dh, silu);
  h = hn::Mul(silu, u);
}

template <bool kWithH>
void BackwardRows(Mat<const float> gate_up, Mat<const float> dh, Mat<float> d_gate_up,
                  Mat<float> h) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  const size_t width = dh.cols;
  for (size_t r = 0; r < dh.rows; ++r) {
    const float* gate = gate_up.Row(r);
    const float* up = gate + width;
    const float* in = dh.Row(r);
    float* d_gate = d_gate_up.Row(r);
    float* d_up = d_gate + width;
    float* out = kWithH ? h.Row(r) : nullptr;
    VF dg, du, hv;
    size_t c = 0;
    for (; c + lanes <= width; c += lanes) {
      BackwardLanes(d, hn::LoadU(d, gate + c), hn::LoadU(d, up + c), hn::LoadU(d, in + c), dg, du,
                    hv);
      hn::StoreU(dg, d, d_gate + c);
      hn::StoreU(du, d, d_up + c);
      if constexpr (kWithH) hn::StoreU(hv, d, out + c);
    }
    if (c < width) {
      const size_t n = width - c;
      BackwardLanes(d, hn::LoadN(d, gate + c, n), hn::LoadN(d, up + c, n), hn::LoadN(d, in + c, n),
                    dg, du, hv);
      hn::StoreN(dg, d, d_gate + c, n);
      hn::StoreN(du, d, d_up + c, n);
      if constexpr (kWithH) hn::StoreN(hv, d, out + c, n);
    }
  }
}

void Backward(Mat<const float> gate_up, Mat<const float> dh, Mat<float> d_gate_up, Mat<float> h) {
  if (h.data == nullptr) {
    BackwardRows<false>(gate_up, dh, d_gate_up, h);
  } else {
    BackwardRows<true>(gate_up, dh, d_gate_up, h);
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

HWY_EXPORT(ForwardRows);
HWY_EXPORT(Backward);

}  // namespace

void SwigluForward(Mat<const float> gate_up, Mat<float> h) {
  HWY_DYNAMIC_DISPATCH(ForwardRows)(gate_up, h);
}

void SwigluBackward(Mat<const float> gate_up, Mat<const float> dh, Mat<float> d_gate_up,
                    Mat<float> h) {
  HWY_DYNAMIC_DISPATCH(Backward)(gate_up, dh, d_gate_up, OrNull(h));
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
