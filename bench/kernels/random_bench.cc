#include "kernels/random.h"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "bench/kernels/rows.h"

namespace lanewise::kernels {
namespace {

using bench::Baseline;
using bench::Rows;

void BM_FillUniform(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  Rows y(1, size);
  bench::RunVersus(
      state, 4.0 * static_cast<double>(size), true,
      [&] { FillUniform({.seed = 1}, 0, 0.0f, 1.0f, y.span()); },
      [&] { Baseline()->uniform(y.data(), size, 1); });
}
BENCHMARK(BM_FillUniform)->Arg(static_cast<int64_t>(bench::kCacheFloats))->UseManualTime();

void BM_FillNormal(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  Rows y(1, size);
  bench::RunVersus(state, 4.0 * static_cast<double>(size), true,
                   [&] { FillNormal({.seed = 1}, 0, 0.0f, 0.02f, y.span()); });
}
BENCHMARK(BM_FillNormal)->Arg(static_cast<int64_t>(bench::kCacheFloats))->UseManualTime();

}  // namespace
}  // namespace lanewise::kernels
