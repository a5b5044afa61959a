#include "kernels/adamw.h"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "bench/kernels/rows.h"

namespace lanewise::kernels {
namespace {

using bench::Baseline;
using bench::Rows;

void BM_AdamW(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  Rows p(1, size), g(1, size), m(1, size), v(1, size, 10.0f);
  // Without gradients the moments would fade into denormal numbers.
  const AdamWStep step = {.lr = 1e-3, .weight_decay = 0.1, .zero_grads = false};
  bench::RunVersus(
      state, 32.0 * static_cast<double>(size), true,
      [&] { AdamWUpdate(step, p.span(), g.span(), m.span(), v.span()); },
      [&] { Baseline()->adamw(p.data(), g.data(), m.data(), v.data(), 1e-3f, 0.1f, size); });
}
BENCHMARK(BM_AdamW)
    ->Arg(static_cast<int64_t>(bench::kCacheFloats / 2))
    ->Arg(static_cast<int64_t>(bench::kMemoryFloats / 2))
    ->UseManualTime();

}  // namespace
}  // namespace lanewise::kernels
