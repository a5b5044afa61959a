#include "kernels/peak.h"

#include <cstddef>
#include <span>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/peak.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Twelve chains cover the latency of two units; each starts elsewhere, or the compiler would see
// twelve equal chains and keep one. `seed` is not known at compile time for the same reason.
#define LW_CHAINS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

double FmaProbeOf(size_t iterations, float seed, volatile float* sink) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, 1.0f - seed);
  const auto term = hn::Set(d, seed);
#define LW_START(i) auto c##i = hn::Set(d, seed * (i + 1));
  LW_CHAINS(LW_START)
#undef LW_START
  for (size_t i = 0; i < iterations; ++i) {
#define LW_STEP(i) c##i = hn::MulAdd(c##i, factor, term);
    LW_CHAINS(LW_STEP)
    LW_CHAINS(LW_STEP)
#undef LW_STEP
  }
  auto sum = hn::Zero(d);
#define LW_SUM(i) sum = hn::Add(sum, c##i);
  LW_CHAINS(LW_SUM)
#undef LW_SUM
  *sink = hn::GetLane(sum);
  return 2.0 * 12 * 2 * static_cast<double>(iterations) * static_cast<double>(hn::Lanes(d));
}

#undef LW_CHAINS

// Four streams and a prefetch far ahead: one plain stream leaves a third of the bandwidth unused.
float ReadProbeOf(const float* data, size_t size) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  constexpr size_t kStream = 2048;  // floats: two pages
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  size_t i = 0;
  for (; i + 4 * kStream <= size; i += 4 * kStream) {
    const float* p = data + i;
    const size_t ahead = i + 8 * kStream <= size ? 4 * kStream : 0;
    for (size_t j = 0; j < kStream; j += lanes, p += lanes) {
      hwy::Prefetch(p + ahead);
      hwy::Prefetch(p + ahead + kStream);
      hwy::Prefetch(p + ahead + 2 * kStream);
      hwy::Prefetch(p + ahead + 3 * kStream);
      s0 = hn::Add(s0, hn::LoadU(d, p));
      s1 = hn::Add(s1, hn::LoadU(d, p + kStream));
      s2 = hn::Add(s2, hn::LoadU(d, p + 2 * kStream));
      s3 = hn::Add(s3, hn::LoadU(d, p + 3 * kStream));
    }
  }
  float sum = hn::ReduceSum(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
  auto rest = hn::Zero(d);
  for (; i + lanes <= size; i += lanes) rest = hn::Add(rest, hn::LoadU(d, data + i));
  sum += hn::ReduceSum(d, rest);
  for (; i < size; ++i) sum += data[i];
  return sum;
}

}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {

HWY_EXPORT(FmaProbeOf);
HWY_EXPORT(ReadProbeOf);

double RunFmaProbe(size_t iterations) {
  volatile float seed = 1e-3f;
  volatile float sink = 0.0f;
  return HWY_DYNAMIC_DISPATCH(FmaProbeOf)(iterations, seed, &sink);
}

float RunReadProbe(std::span<const float> data) {
  return HWY_DYNAMIC_DISPATCH(ReadProbeOf)(data.data(), data.size());
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
