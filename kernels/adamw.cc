#include "kernels/adamw.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/adamw.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/bfloat16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

// The step's constants as the lanes need them.
struct Factors {
  explicit Factors(const AdamWStep& step)
      : grad_scale(static_cast<float>(step.grad_scale)),
        beta1(static_cast<float>(step.beta1)),
        one_minus_beta1(static_cast<float>(1.0 - step.beta1)),
        beta2(static_cast<float>(step.beta2)),
        one_minus_beta2(static_cast<float>(1.0 - step.beta2)),
        inverse_correction2(static_cast<float>(1.0 / step.bias_correction2)),
        eps(static_cast<float>(step.eps)),
        rate(static_cast<float>(step.lr / step.bias_correction1)),
        decay(static_cast<float>(step.lr * step.weight_decay)) {}

  float grad_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, inverse_correction2, eps, rate,
      decay;
};

// Updates the moments in place and returns the new parameter.
HWY_INLINE VF UpdateLanes(DF d, const Factors& f, VF p, VF g, VF& m, VF& v) {
  g = hn::Mul(g, hn::Set(d, f.grad_scale));
  m = hn::MulAdd(hn::Set(d, f.beta1), m, hn::Mul(hn::Set(d, f.one_minus_beta1), g));
  const VF square = hn::Mul(g, g);
  v = hn::MulAdd(hn::Set(d, f.beta2), v, hn::Mul(hn::Set(d, f.one_minus_beta2), square));
  const VF root = hn::Sqrt(hn::Mul(v, hn::Set(d, f.inverse_correction2)));
  const VF denominator = hn::Add(root, hn::Set(d, f.eps));
  const VF change = hn::Div(hn::Mul(hn::Set(d, f.rate), m), denominator);
  // p - (change + decay p), not p (1 - decay): the float nearest to 1 - 1e-6 is 3% off in the
  // decay.
  const VF updated = hn::Sub(p, hn::MulAdd(hn::Set(d, f.decay), p, change));
  return hn::IfThenElse(hn::IsFinite(updated), updated, p);
}

template <bool kZeroGrads, bool kRounded>
void UpdateRange(const Factors& f, float* params, float* grads, float* moment1, float* moment2,
                 BFloat16* rounded, size_t size) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    VF m = hn::LoadU(d, moment1 + i);
    VF v = hn::LoadU(d, moment2 + i);
    const VF p = UpdateLanes(d, f, hn::LoadU(d, params + i), hn::LoadU(d, grads + i), m, v);
    hn::StoreU(p, d, params + i);
    hn::StoreU(m, d, moment1 + i);
    hn::StoreU(v, d, moment2 + i);
    if constexpr (kZeroGrads) hn::StoreU(hn::Zero(d), d, grads + i);
    if constexpr (kRounded) bf16::Store(d, p, rounded + i);
  }
  if (i < size) {
    const size_t n = size - i;
    VF m = hn::LoadN(d, moment1 + i, n);
    VF v = hn::LoadN(d, moment2 + i, n);
    const VF p = UpdateLanes(d, f, hn::LoadN(d, params + i, n), hn::LoadN(d, grads + i, n), m, v);
    hn::StoreN(p, d, params + i, n);
    hn::StoreN(m, d, moment1 + i, n);
    hn::StoreN(v, d, moment2 + i, n);
    if constexpr (kZeroGrads) hn::StoreN(hn::Zero(d), d, grads + i, n);
    if constexpr (kRounded) bf16::StoreN(d, p, rounded + i, n);
  }
}

void Update(const AdamWStep& step, float* params, float* grads, float* m, float* v,
            BFloat16* rounded, size_t size) {
  const Factors factors(step);
  const bool half = rounded != nullptr;
  const auto update = step.zero_grads
                          ? (half ? &UpdateRange<true, true> : &UpdateRange<true, false>)
                          : (half ? &UpdateRange<false, true> : &UpdateRange<false, false>);
  update(factors, params, grads, m, v, rounded, size);
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {

HWY_EXPORT(Update);

}  // namespace

void AdamWUpdate(const AdamWStep& step, std::span<float> params, std::span<float> grads,
                 std::span<float> m, std::span<float> v, std::span<BFloat16> rounded) {
  HWY_DYNAMIC_DISPATCH(Update)(step, params.data(), grads.data(), m.data(), v.data(),
                               DataOrNull(rounded), params.size());
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
