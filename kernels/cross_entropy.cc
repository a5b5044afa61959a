#include "kernels/cross_entropy.h"

#include <algorithm>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cross_entropy.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/exp_sum-inl.h"
#include "kernels/loop-inl.h"
#include "kernels/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

// Two rows of so many floats do not fit the first-level cache.
constexpr size_t kLongRow = 4096;

struct Args {
  const int32_t* targets;
  float smoothing;
  float scale;
  float* loss;  // or null
  float* nll;   // or null
};

// sum (x - max), for the uniform part of a smoothed target.
HWY_INLINE float SumBelowMax(DF d, const float* x, size_t size, float max) {
  const VF sum = Fold(
      d, x, size, hn::Zero(d), max,
      [max](DF tag, VF acc, VF v) HWY_ATTR { return hn::Add(acc, hn::Sub(v, hn::Set(tag, max))); },
      [](VF a, VF b) HWY_ATTR { return hn::Add(a, b); });
  return hn::ReduceSum(d, sum);
}

// What the losses and gradients of a group of rows are made of. A row without a target stays as it
// is here and gets the loss 0.
struct RowGroupState {
  float max[kMaxRowGroup] = {};
  float below[kMaxRowGroup] = {};      // sum (x - max), where the loss needs it
  float at_target[kMaxRowGroup] = {};  // x - max there
  float sum[kMaxRowGroup] = {};        // of e^(x - max)
  float factor[kMaxRowGroup];          // of the gradient
  float gradient_at[kMaxRowGroup];     // the gradient at the target
  float loss[kMaxRowGroup];
  float nll[kMaxRowGroup];
};

// From sums to losses and factors, a vector of rows at a time.
HWY_INLINE void Finish(const Args& args, float uniform, RowGroupState& s) {
  const hn::CappedTag<float, kMaxRowGroup> d;
  const float rest = 1.0f - args.smoothing;
  for (size_t i = 0; i < kMaxRowGroup; i += hn::Lanes(d)) {
    const auto sum = hn::LoadU(d, s.sum + i);
    const auto at_target = hn::LoadU(d, s.at_target + i);
    const auto log_sum = Log(d, sum);
    hn::StoreU(hn::Sub(log_sum, at_target), d, s.nll + i);
    auto loss = hn::NegMulAdd(hn::Set(d, rest), at_target, log_sum);
    loss = hn::NegMulAdd(hn::Set(d, uniform), hn::LoadU(d, s.below + i), loss);
    hn::StoreU(loss, d, s.loss + i);
    const auto factor = hn::Div(hn::Set(d, args.scale), sum);
    hn::StoreU(factor, d, s.factor + i);
    const auto p =
        hn::MulSub(ExpNoOverflow(d, at_target), factor, hn::Set(d, args.scale * uniform));
    hn::StoreU(hn::Sub(p, hn::Set(d, args.scale * rest)), d, s.gradient_at + i);
  }
}

// Writes the losses of `count` rows from row r on and, with kGradient, replaces the logits by their
// gradient, which is the same memory.
// kLong: the next row does not stay in the first-level cache while a pass goes over this one; then
// all passes fetch it, each as much as memory gives in its time.
template <bool kGradient, bool kLong>
HWY_INLINE void Group(DF d, const Args& args, Mat<const float> logits, Mat<float> gradient,
                      size_t r, size_t count) {
  const size_t size = logits.cols;
  constexpr size_t kInMax = kLong ? 1 : 0;
  constexpr size_t kInExp = kLong ? 2 : kFetchAll;
  constexpr size_t kInScale = kLong ? 1 : 0;
  const size_t ahead = RowGroup(size) * logits.stride;
  const int32_t* targets = args.targets + r;
  const float uniform = args.smoothing / static_cast<float>(size);
  RowGroupState s;
  std::fill_n(s.sum, kMaxRowGroup, 1.0f);
  for (size_t i = 0; i < count; ++i) {
    if (targets[i] < 0) continue;
    // Everything below is relative to the maximum, so that nothing large cancels.
    const float* x = logits.Row(r + i);
    s.max[i] = RowMax<kInMax>(d, x, size, LineAhead(x, ahead));
    s.at_target[i] = x[targets[i]] - s.max[i];
    if (args.smoothing != 0.0f && args.loss != nullptr) {
      s.below[i] = SumBelowMax(d, x, size, s.max[i]);
    }
  }
  for (size_t i = 0; i < count; ++i) {
    if (targets[i] < 0) continue;
    const float* x = logits.Row(r + i);
    float* out = kGradient ? gradient.Row(r + i) : nullptr;
    const float* next = LineAhead(x, ahead + (kLong ? size / 4 : 0));
    s.sum[i] = SumExp<kGradient, kInExp>(d, x, out, size, s.max[i], next);
  }
  Finish(args, uniform, s);
  if (args.loss != nullptr) std::copy_n(s.loss, count, args.loss + r);
  if (args.nll != nullptr) std::copy_n(s.nll, count, args.nll + r);
  if constexpr (!kGradient) return;
  for (size_t i = 0; i < count; ++i) {
    float* row = gradient.Row(r + i);
    if (targets[i] < 0) {
      std::fill_n(row, size, 0.0f);
      continue;
    }
    const float* next = LineAhead(row, ahead + size / 4 * 3);
    ScaleRow<kInScale>(d, row, size, s.factor[i], args.scale * uniform, next);
    row[targets[i]] = s.gradient_at[i];
  }
}

template <bool kGradient>
void AllRows(const Args& args, Mat<const float> logits, Mat<float> gradient) {
  const size_t step = RowGroup(logits.cols);
  for (size_t r = 0; r < logits.rows; r += step) {
    const size_t count = std::min(step, logits.rows - r);
    if (kGradient && logits.cols > kLongRow) {
      Group<kGradient, kGradient>(DF(), args, logits, gradient, r, count);
    } else {
      Group<kGradient, false>(DF(), args, logits, gradient, r, count);
    }
  }
}

void Forward(Mat<const float> logits, const int32_t* targets, float smoothing, float* loss,
             float* nll) {
  AllRows<false>({targets, smoothing, 0.0f, loss, nll}, logits, {});
}

void ForwardBackward(Mat<float> logits, const int32_t* targets, float smoothing, float scale,
                     float* loss, float* nll) {
  AllRows<true>({targets, smoothing, scale, loss, nll}, logits, logits);
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
