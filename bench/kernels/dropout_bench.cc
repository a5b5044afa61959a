#include "kernels/dropout.h"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "bench/kernels/rows.h"

namespace lanewise::kernels {
namespace {

using bench::Baseline;
using bench::Rows;

void BM_Dropout(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0));
  const auto cols = static_cast<size_t>(state.range(1));
  Rows x(rows, cols), y(rows, cols);
  bench::RunVersus(state, 8.0 * static_cast<double>(rows * cols), false,
                   [&] { DropoutForward(x.view(), 0.1f, {.seed = 1}, 0, y.view()); });
}
BENCHMARK(BM_Dropout)->Apply(bench::RowShapes);

}  // namespace
}  // namespace lanewise::kernels
