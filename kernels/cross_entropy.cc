#include "kernels/cross_entropy.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cross_entropy.cc"
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

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

struct Args {
  const int32_t* targets;
  float smoothing;
  float scale;
  float* loss;  // or null
  float* nll;   // or null
};

HWY_INLINE float RowMax(DF d, const float* x, size_t size) {
  const VF largest = Fold(
      d, x, size, hn::Set(d, kMinusInfinity), kMinusInfinity,
      [](DF, VF a, VF v) HWY_ATTR { return hn::Max(a, v); },
      [](VF a, VF b) HWY_ATTR { return hn::Max(a, b); });
  return hn::ReduceMax(d, largest);
}

// sum (x - max), for the uniform part of a smoothed target.
HWY_INLINE float SumBelowMax(DF d, const float* x, size_t size, float max) {
  const VF sum = Fold(
      d, x, size, hn::Zero(d), max,
      [max](DF tag, VF acc, VF v) HWY_ATTR { return hn::Add(acc, hn::Sub(v, hn::Set(tag, max))); },
      [](VF a, VF b) HWY_ATTR { return hn::Add(a, b); });
  return hn::ReduceSum(d, sum);
}

// sum e^(x - max); with kStore the terms are written to y, which may be x, but for those of the
// last vector if it is partial. They are left in `tail`, which then starts at TailStart(size): a
// whole vector that overlaps the one before it, because a masked store would make the next row's
// loads wait.
template <bool kStore>
HWY_INLINE float SumExp(DF d, const float* x, float* y, size_t size, float max, VF& tail) {
  const size_t lanes = hn::Lanes(d);
  const VF largest = hn::Set(d, max);
  VF sum0 = hn::Zero(d);
  VF sum1 = hn::Zero(d);
  VF sum2 = hn::Zero(d);
  VF sum3 = hn::Zero(d);
  // Before anything is overwritten.
  const VF last = LoadLast(d, x, size);
  size_t i = 0;
  for (; i + 4 * lanes <= size; i += 4 * lanes) {
    const VF e0 = ExpNoOverflow(d, hn::Sub(hn::LoadU(d, x + i), largest));
    const VF e1 = ExpNoOverflow(d, hn::Sub(hn::LoadU(d, x + i + lanes), largest));
    const VF e2 = ExpNoOverflow(d, hn::Sub(hn::LoadU(d, x + i + 2 * lanes), largest));
    const VF e3 = ExpNoOverflow(d, hn::Sub(hn::LoadU(d, x + i + 3 * lanes), largest));
    if constexpr (kStore) {
      hn::StoreU(e0, d, y + i);
      hn::StoreU(e1, d, y + i + lanes);
      hn::StoreU(e2, d, y + i + 2 * lanes);
      hn::StoreU(e3, d, y + i + 3 * lanes);
    }
    sum0 = hn::Add(sum0, e0);
    sum1 = hn::Add(sum1, e1);
    sum2 = hn::Add(sum2, e2);
    sum3 = hn::Add(sum3, e3);
  }
  for (; i + lanes <= size; i += lanes) {
    const VF e = ExpNoOverflow(d, hn::Sub(hn::LoadU(d, x + i), largest));
    if constexpr (kStore) hn::StoreU(e, d, y + i);
    sum0 = hn::Add(sum0, e);
  }
  if (i < size) {
    const size_t start = TailStart(lanes, size);
    tail = ExpNoOverflow(d, hn::Sub(last, largest));
    sum1 = hn::Add(sum1, hn::IfThenZeroElse(hn::FirstN(d, i - start), tail));
  }
  return hn::ReduceSum(d, hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3)));
}

HWY_INLINE float ScalarLog(DF d, float x) { return hn::GetLane(Log(d, hn::Set(d, x))); }

// Writes the losses of row r and, with kGradient, replaces the logits by their gradient.
template <bool kGradient>
HWY_INLINE void Row(DF d, const Args& args, size_t r, const float* logits, float* gradient,
                    size_t size) {
  if (args.targets[r] < 0) {
    if (args.loss != nullptr) args.loss[r] = 0.0f;
    if (args.nll != nullptr) args.nll[r] = 0.0f;
    if constexpr (kGradient) std::fill_n(gradient, size, 0.0f);
    return;
  }
  const auto target = static_cast<size_t>(args.targets[r]);
  const float uniform = args.smoothing / static_cast<float>(size);
  const float max = RowMax(d, logits, size);
  // Everything below is relative to the maximum, so that nothing large cancels.
  const float at_target = logits[target] - max;
  const float below =
      args.smoothing != 0.0f && args.loss != nullptr ? SumBelowMax(d, logits, size, max) : 0.0f;
  VF tail = hn::Zero(d);
  const float sum = SumExp<kGradient>(d, logits, gradient, size, max, tail);
  const float log_sum = ScalarLog(d, sum);
  const float nll = log_sum - at_target;
  if (args.nll != nullptr) args.nll[r] = nll;
  if (args.loss != nullptr) {
    args.loss[r] = args.smoothing == 0.0f
                       ? nll
                       : log_sum - (1.0f - args.smoothing) * at_target - uniform * below;
  }
  if constexpr (kGradient) {
    const VF factor = hn::Set(d, args.scale / sum);
    const VF shift = hn::Set(d, args.scale * uniform);
    const size_t lanes = hn::Lanes(d);
    size_t i = 0;
    for (; i + lanes <= size; i += lanes) {
      hn::StoreU(hn::MulSub(hn::LoadU(d, gradient + i), factor, shift), d, gradient + i);
    }
    if (i < size) StoreLast(hn::MulSub(tail, factor, shift), d, gradient, size);
    // At the target once more, rather than wait for what was just stored.
    const VF at = hn::MulSub(ExpNoOverflow(d, hn::Set(d, at_target)), factor, shift);
    gradient[target] = hn::GetLane(at) - args.scale * (1.0f - args.smoothing);
  }
}

void Forward(Mat<const float> logits, const int32_t* targets, float smoothing, float* loss,
             float* nll) {
  const DF d;
  const Args args{targets, smoothing, 0.0f, loss, nll};
  for (size_t r = 0; r < logits.rows; ++r) {
    Row<false>(d, args, r, logits.Row(r), nullptr, logits.cols);
  }
}

void ForwardBackward(Mat<float> logits, const int32_t* targets, float smoothing, float scale,
                     float* loss, float* nll) {
  const DF d;
  const Args args{targets, smoothing, scale, loss, nll};
  for (size_t r = 0; r < logits.rows; ++r) {
    Row<true>(d, args, r, logits.Row(r), logits.Row(r), logits.cols);
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

HWY_EXPORT(Forward);
HWY_EXPORT(ForwardBackward);

float* DataOrNull(std::span<float> v) { return v.empty() ? nullptr : v.data(); }

}  // namespace

void CrossEntropyForward(Mat<const float> logits, std::span<const int32_t> targets, float smoothing,
                         std::span<float> loss, std::span<float> nll) {
  HWY_DYNAMIC_DISPATCH(Forward)
  (logits, targets.data(), smoothing, DataOrNull(loss), DataOrNull(nll));
}

void CrossEntropyForwardBackward(Mat<float> logits, std::span<const int32_t> targets,
                                 float smoothing, float scale, std::span<float> loss,
                                 std::span<float> nll) {
  HWY_DYNAMIC_DISPATCH(ForwardBackward)
  (logits, targets.data(), smoothing, scale, DataOrNull(loss), DataOrNull(nll));
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
