#include "kernels/reduce.h"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "bench/kernels/rows.h"

namespace lanewise::kernels {
namespace {

using bench::Baseline;
using bench::Rows;

void Sizes(benchmark::internal::Benchmark* b) {
  b->Arg(static_cast<int64_t>(bench::kCacheFloats))
      ->Arg(static_cast<int64_t>(bench::kMemoryFloats))
      ->UseManualTime();
}

void BM_Add(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  Rows a(1, size), b(1, size), y(1, size);
  bench::RunVersus(
      state, 12.0 * static_cast<double>(size), false, [&] { Add(a.span(), b.span(), y.span()); },
      [&] { Baseline()->add(a.data(), b.data(), y.data(), size); });
}
BENCHMARK(BM_Add)->Apply(Sizes);

void BM_SumSquares(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  Rows x(1, size);
  bench::RunVersus(
      state, 4.0 * static_cast<double>(size), true,
      [&] { benchmark::DoNotOptimize(SumSquares(x.span())); },
      [&] { benchmark::DoNotOptimize(Baseline()->sum_squares(x.data(), size)); });
}
BENCHMARK(BM_SumSquares)->Apply(Sizes);

void BM_SumRowsTree(benchmark::State& state) {
  const size_t cols = static_cast<size_t>(state.range(0)) / 8;
  Rows x(8, cols), y(1, cols);
  bench::RunVersus(
      state, 36.0 * static_cast<double>(cols), false, [&] { SumRowsTree(x.view(), y.span()); },
      [&] { Baseline()->sum_rows(x.data(), y.data(), cols); });
}
BENCHMARK(BM_SumRowsTree)->Apply(Sizes);

}  // namespace
}  // namespace lanewise::kernels
