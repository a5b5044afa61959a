#include "kernels/softmax.h"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "bench/kernels/rows.h"

namespace lanewise::kernels {
namespace {

using bench::Baseline;
using bench::Rows;

void Shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "groups", "S"})->UseManualTime();
  b->Args({1024, 2, 2})->Args({1024, 2, 4})->Args({1024, 2, 5})->Args({1024, 2, 8});
  b->Args({1024, 2, 16})->Args({1024, 2, 32})->Args({512, 1, 65})->Args({512, 1, 128});
  b->Args({128, 1, 1024})->Args({4, 1, 32000});
  b->Args({static_cast<int64_t>(bench::kMemoryFloats / 1024), 1, 1024});
}

void BM_SoftmaxForward(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0));
  const auto groups = static_cast<size_t>(state.range(1));
  const auto size = static_cast<size_t>(state.range(2));
  Rows x(rows, groups * size), y(rows, groups * size);
  bench::RunVersus(
      state, 8.0 * static_cast<double>(rows * groups * size), false,
      [&] { SoftmaxForward(x.view(), y.view(), groups); },
      [&] { Baseline()->softmax_forward(x.data(), y.data(), rows * groups, size); });
}
BENCHMARK(BM_SoftmaxForward)->Apply(Shapes);

void BM_SoftmaxBackward(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0));
  const auto groups = static_cast<size_t>(state.range(1));
  const auto size = static_cast<size_t>(state.range(2));
  Rows y(rows, groups * size), dy(rows, groups * size), dx(rows, groups * size);
  bench::RunVersus(
      state, 12.0 * static_cast<double>(rows * groups * size), false,
      [&] { SoftmaxBackward(y.view(), dy.view(), dx.view(), groups); },
      [&] { Baseline()->softmax_backward(y.data(), dy.data(), dx.data(), rows * groups, size); });
}
BENCHMARK(BM_SoftmaxBackward)->Apply(Shapes);

}  // namespace
}  // namespace lanewise::kernels
