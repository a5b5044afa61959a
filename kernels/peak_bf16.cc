#include "kernels/peak.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/peak_bf16.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "hwy/highway.h"
#include "kernels/bfloat16-inl.h"
#include "kernels/matmul.h"
#include "kernels/matmul/amx.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Twelve chains cover the latency of two units; each starts elsewhere, or the compiler would see
// twelve equal chains and keep one. `seed` is not known at compile time for the same reason.
#define LW_CHAINS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

double Bf16DotProbeOf(size_t iterations, float seed, volatile float* sink) {
#if LANEWISE_BF16_DOT
  const hn::ScalableTag<float> d;
  const hn::Repartition<hwy::bfloat16_t, decltype(d)> db;
  const auto a = hn::BitCast(db, hn::Set(d, seed));
  const auto b = hn::BitCast(db, hn::Set(d, 1.0f - seed));
  auto unused = hn::Zero(d);
#define LW_START(i) auto c##i = hn::Set(d, seed * (i + 1));
  LW_CHAINS(LW_START)
#undef LW_START
  for (size_t i = 0; i < iterations; ++i) {
#define LW_STEP(i) c##i = hn::ReorderWidenMulAccumulate(d, a, b, c##i, unused);
    LW_CHAINS(LW_STEP)
    LW_CHAINS(LW_STEP)
#undef LW_STEP
  }
  auto sum = hn::Zero(d);
#define LW_SUM(i) sum = hn::Add(sum, c##i);
  LW_CHAINS(LW_SUM)
#undef LW_SUM
  *sink = hn::GetLane(sum);
  return 4.0 * 12 * 2 * static_cast<double>(iterations) * static_cast<double>(hn::Lanes(d));
#else
  (void)iterations, (void)seed, (void)sink;
  return 0.0;
#endif
}
#undef LW_CHAINS

}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {

HWY_EXPORT(Bf16DotProbeOf);

double RunBf16DotProbe(size_t iterations) {
  volatile float seed = 1e-3f;
  volatile float sink = 0.0f;
  return HWY_DYNAMIC_DISPATCH(Bf16DotProbeOf)(iterations, seed, &sink);
}

double RunBf16Probe(size_t iterations) {
  double flops = 0;
  switch (MatmulBf16Unit()) {
    case Bf16Unit::kAmx:
      flops = matmul::RunAmxProbe(iterations);
      break;
    case Bf16Unit::kDot:
      flops = RunBf16DotProbe(iterations);
      break;
    case Bf16Unit::kFloat32:
      break;
  }
  return flops > 0 ? flops : RunFmaProbe(iterations);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
