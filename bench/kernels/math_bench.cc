#include "kernels/math.h"

#include <benchmark/benchmark.h>

#include <span>

#include "bench/kernels/rows.h"

namespace lanewise::kernels {
namespace {

using bench::Baseline;

void Run(benchmark::State& state, void (*kernel)(std::span<const float>, std::span<float>),
         void (*bench::BaselineLoops::*loop)(const float*, float*, size_t), float mean) {
  const auto size = static_cast<size_t>(state.range(0));
  bench::Rows x(1, size, mean), y(1, size);
  bench::RunVersus(
      state, 8.0 * static_cast<double>(size), false, [&] { kernel(x.span(), y.span()); },
      [&] { (Baseline()->*loop)(x.data(), y.data(), size); });
}

#define LANEWISE_BENCH_FUNCTION(Name, loop, mean)                                                  \
  void BM_##Name(benchmark::State& state) { Run(state, Name, &bench::BaselineLoops::loop, mean); } \
  BENCHMARK(BM_##Name)->Arg(bench::kCacheFloats)->Arg(bench::kMemoryFloats)->UseManualTime()

LANEWISE_BENCH_FUNCTION(Exp, exp, 0.0f);
LANEWISE_BENCH_FUNCTION(Log, log, 20.0f);
LANEWISE_BENCH_FUNCTION(Sigmoid, sigmoid, 0.0f);
LANEWISE_BENCH_FUNCTION(Tanh, tanh, 0.0f);
LANEWISE_BENCH_FUNCTION(Silu, silu, 0.0f);

}  // namespace
}  // namespace lanewise::kernels
