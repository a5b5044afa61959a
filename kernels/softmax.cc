#include "kernels/softmax.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/softmax.cc"
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

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// The runs of a matrix, row by row.
struct Runs {
  size_t groups, size, padded;
};

// Walks over the runs of a matrix without a division for each.
template <typename T>
class RunCursor {
 public:
  RunCursor(Mat<T> m, Runs runs) : m_(m), runs_(runs), row_(m.data) {}

  T* Next() {
    T* const run = row_ + group_ * runs_.size;
    if (++group_ == runs_.groups) {
      group_ = 0;
      row_ += m_.stride;
    }
    return run;
  }

 private:
  Mat<T> m_;
  Runs runs_;
  T* row_;
  size_t group_ = 0;
};

// --- Runs longer than a vector: passes over a group of them, which stays in L1. ---

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

void ForwardLong(Mat<const float> x, Mat<float> y, Runs runs) {
  const DF d;
  RunCursor<const float> from(x, runs);
  RunCursor<float> to(y, runs);
  const size_t total = x.rows * runs.groups;
  const size_t step = RowGroup(runs.size);
  const size_t ahead = step * runs.size;
  const float* in[kMaxRowGroup];
  float* out[kMaxRowGroup];
  float factor[kMaxRowGroup];
  for (size_t first = 0; first < total; first += step) {
    const size_t count = std::min(step, total - first);
    for (size_t i = 0; i < count; ++i) {
      in[i] = from.Next();
      out[i] = to.Next();
      factor[i] = RowMax(d, in[i], runs.size);
    }
    for (size_t i = 0; i < count; ++i) {
      factor[i] = 1.0f / SumExp<true>(d, in[i], out[i], runs.size, factor[i],
                                      LineAhead(in[i], ahead), LineAhead(out[i], ahead));
    }
    for (size_t i = 0; i < count; ++i) ScaleRow(d, out[i], runs.size, factor[i], 0.0f);
  }
}

void BackwardRun(const float* y, const float* dy, float* dx, size_t size) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  VF sum0 = hn::Zero(d);
  VF sum1 = hn::Zero(d);
  size_t i = 0;
  for (; i + 2 * lanes <= size; i += 2 * lanes) {
    sum0 = hn::MulAdd(hn::LoadU(d, y + i), hn::LoadU(d, dy + i), sum0);
    sum1 = hn::MulAdd(hn::LoadU(d, y + i + lanes), hn::LoadU(d, dy + i + lanes), sum1);
  }
  for (; i < size; i += lanes) {
    const size_t n = std::min(lanes, size - i);
    sum0 = hn::MulAdd(hn::LoadN(d, y + i, n), hn::LoadN(d, dy + i, n), sum0);
  }
  const float dot = hn::ReduceSum(d, hn::Add(sum0, sum1));
  Map(d, y, dy, dx, size,
      [dot](DF tag, VF a, VF b) HWY_ATTR { return hn::Mul(a, hn::Sub(b, hn::Set(tag, dot))); });
}

// --- Short runs: several of them in each vector, each padded to a power of two of lanes. ---

using DS = hn::CappedTag<float, 16>;  // with more lanes, the block shuffles below would not do
using VS = hn::Vec<DS>;

// Combines each lane with all others of its run of kRun lanes; every lane gets the result.
template <size_t kRun, class Op>
HWY_INLINE VS AcrossRun(DS d, VS v, const Op& op) {
  if constexpr (kRun >= 2) v = op(v, hn::Shuffle2301(v));
  if constexpr (kRun >= 4) v = op(v, hn::Shuffle1032(v));
  if constexpr (kRun >= 8) v = op(v, hn::SwapAdjacentBlocks(v));
  if constexpr (kRun >= 16) v = op(v, hn::ReverseBlocks(d, v));
  return v;
}

template <size_t kRun>
HWY_INLINE VS ForwardLanes(DS d, VS x) {
  const VS largest = AcrossRun<kRun>(d, x, [](VS a, VS b) HWY_ATTR { return hn::Max(a, b); });
  const VS e = ExpNoOverflow(d, hn::Sub(x, largest));
  return hn::Div(e, AcrossRun<kRun>(d, e, [](VS a, VS b) HWY_ATTR { return hn::Add(a, b); }));
}

template <size_t kRun>
HWY_INLINE VS BackwardLanes(DS d, VS y, VS dy) {
  const VS dot =
      AcrossRun<kRun>(d, hn::Mul(y, dy), [](VS a, VS b) HWY_ATTR { return hn::Add(a, b); });
  return hn::Mul(y, hn::Sub(dy, dot));
}

// x, y: `size` lanes of runs in a row, without gaps.
template <size_t kRun>
void ForwardPacked(const float* x, float* y, size_t size) {
  const DS d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    hn::StoreU(ForwardLanes<kRun>(d, hn::LoadU(d, x + i)), d, y + i);
  }
  if (i < size) {
    const size_t n = size - i;
    hn::StoreN(ForwardLanes<kRun>(d, hn::LoadN(d, x + i, n)), d, y + i, n);
  }
}

template <size_t kRun>
void BackwardPacked(const float* y, const float* dy, float* dx, size_t size) {
  const DS d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    hn::StoreU(BackwardLanes<kRun>(d, hn::LoadU(d, y + i), hn::LoadU(d, dy + i)), d, dx + i);
  }
  if (i < size) {
    const size_t n = size - i;
    hn::StoreN(BackwardLanes<kRun>(d, hn::LoadN(d, y + i, n), hn::LoadN(d, dy + i, n)), d, dx + i,
               n);
  }
}

constexpr size_t kBuffer = 512;  // floats of padded runs handled at a time

// Copies the next `count` runs to a buffer of padded runs. Whole vectors are written, so the buffer
// has one more vector at its end.
void Pack(RunCursor<const float>& cursor, Runs runs, size_t count, float pad, float* buffer) {
  const DS d;
  for (size_t i = 0; i < count; ++i) {
    hn::StoreU(hn::LoadNOr(hn::Set(d, pad), d, cursor.Next(), runs.size), d,
               buffer + i * runs.padded);
  }
}

void Unpack(const float* buffer, Runs runs, size_t count, RunCursor<float>& cursor) {
  const DS d;
  for (size_t i = 0; i < count; ++i) {
    hn::StoreN(hn::LoadU(d, buffer + i * runs.padded), d, cursor.Next(), runs.size);
  }
}

template <size_t kRun>
void ForwardShort(Mat<const float> x, Mat<float> y, Runs runs) {
  if (runs.size == kRun && x.stride == x.cols && y.stride == y.cols) {
    ForwardPacked<kRun>(x.data, y.data, x.rows * x.cols);
    return;
  }
  alignas(64) float buffer[kBuffer + 16];
  RunCursor<const float> from(x, runs);
  RunCursor<float> to(y, runs);
  const size_t total = x.rows * runs.groups;
  for (size_t first = 0; first < total; first += kBuffer / kRun) {
    const size_t count = std::min(kBuffer / kRun, total - first);
    Pack(from, runs, count, kMinusInfinity, buffer);
    ForwardPacked<kRun>(buffer, buffer, count * kRun);
    Unpack(buffer, runs, count, to);
  }
}

template <size_t kRun>
void BackwardShort(Mat<const float> y, Mat<const float> dy, Mat<float> dx, Runs runs) {
  if (runs.size == kRun && y.stride == y.cols && dy.stride == dy.cols && dx.stride == dx.cols) {
    BackwardPacked<kRun>(y.data, dy.data, dx.data, y.rows * y.cols);
    return;
  }
  alignas(64) float buffer[kBuffer + 16];
  alignas(64) float gradient[kBuffer + 16];
  RunCursor<const float> from_y(y, runs);
  RunCursor<const float> from_dy(dy, runs);
  RunCursor<float> to(dx, runs);
  const size_t total = y.rows * runs.groups;
  for (size_t first = 0; first < total; first += kBuffer / kRun) {
    const size_t count = std::min(kBuffer / kRun, total - first);
    Pack(from_y, runs, count, 0.0f, buffer);
    Pack(from_dy, runs, count, 0.0f, gradient);
    BackwardPacked<kRun>(buffer, gradient, gradient, count * kRun);
    Unpack(gradient, runs, count, to);
  }
}

// Lanes that a run of `size` columns takes in the short form, or 0 if it does not fit into a
// vector.
size_t PaddedRun(size_t size) {
  size_t padded = 1;
  while (padded < size) padded *= 2;
  return padded <= hn::Lanes(DS()) ? padded : 0;
}

void Forward(Mat<const float> x, Mat<float> y, size_t groups) {
  const size_t size = x.cols / groups;
  const Runs runs{groups, size, PaddedRun(size)};
  switch (runs.padded) {
    case 1:
      return ForwardShort<1>(x, y, runs);
    case 2:
      return ForwardShort<2>(x, y, runs);
    case 4:
      return ForwardShort<4>(x, y, runs);
    case 8:
      return ForwardShort<8>(x, y, runs);
    case 16:
      return ForwardShort<16>(x, y, runs);
    default:
      break;
  }
  ForwardLong(x, y, runs);
}

void Backward(Mat<const float> y, Mat<const float> dy, Mat<float> dx, size_t groups) {
  const size_t size = y.cols / groups;
  const Runs runs{groups, size, PaddedRun(size)};
  switch (runs.padded) {
    case 1:
      return BackwardShort<1>(y, dy, dx, runs);
    case 2:
      return BackwardShort<2>(y, dy, dx, runs);
    case 4:
      return BackwardShort<4>(y, dy, dx, runs);
    case 8:
      return BackwardShort<8>(y, dy, dx, runs);
    case 16:
      return BackwardShort<16>(y, dy, dx, runs);
    default:
      break;
  }
  for (size_t r = 0; r < y.rows; ++r) {
    for (size_t g = 0; g < groups; ++g) {
      BackwardRun(y.Row(r) + g * size, dy.Row(r) + g * size, dx.Row(r) + g * size, size);
    }
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
HWY_EXPORT(Backward);

}  // namespace

void SoftmaxForward(Mat<const float> x, Mat<float> y, size_t groups) {
  HWY_DYNAMIC_DISPATCH(Forward)(x, y, groups);
}

void SoftmaxBackward(Mat<const float> y, Mat<const float> dy, Mat<float> dx, size_t groups) {
  HWY_DYNAMIC_DISPATCH(Backward)(y, dy, dx, groups);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
