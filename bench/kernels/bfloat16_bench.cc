#include "kernels/bfloat16.h"

#include <benchmark/benchmark.h>

#include <vector>

#include "bench/kernels/rows.h"

namespace lanewise::kernels {
namespace {

using bench::Rows;

void BM_RoundToBFloat16(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0) * state.range(1));
  Rows from(1, size);
  std::vector<BFloat16> to(size);
  bench::RunVersus(state, 6.0 * static_cast<double>(size), false,
                   [&] { RoundToBFloat16({from.data(), size}, to); });
}
BENCHMARK(BM_RoundToBFloat16)->Apply(bench::RowShapes);

void BM_WidenBFloat16(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0) * state.range(1));
  Rows to(1, size);
  std::vector<BFloat16> from(size);
  bench::RunVersus(state, 6.0 * static_cast<double>(size), false,
                   [&] { WidenBFloat16(from, {to.data(), size}); });
}
BENCHMARK(BM_WidenBFloat16)->Apply(bench::RowShapes);

}  // namespace
}  // namespace lanewise::kernels
