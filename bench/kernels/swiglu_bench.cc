#include "kernels/swiglu.h"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "bench/kernels/rows.h"

namespace lanewise::kernels {
namespace {

using bench::Baseline;
using bench::Rows;

void Shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "F"})->UseManualTime();
  for (const size_t width : {256, 768, 1152, 2048}) {
    b->Args({static_cast<int64_t>(bench::kCacheFloats / width / 2), static_cast<int64_t>(width)});
  }
  b->Args({static_cast<int64_t>(bench::kMemoryFloats / 2048), 1024});
}

void BM_SwigluForward(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0));
  const auto width = static_cast<size_t>(state.range(1));
  Rows gate_up(rows, 2 * width), h(rows, width);
  bench::RunVersus(
      state, 12.0 * static_cast<double>(rows * width), false,
      [&] { SwigluForward(gate_up.view(), h.view()); },
      [&] { Baseline()->swiglu_forward(gate_up.data(), h.data(), rows, width); });
}
BENCHMARK(BM_SwigluForward)->Apply(Shapes);

void BM_SwigluBackward(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0));
  const auto width = static_cast<size_t>(state.range(1));
  Rows gate_up(rows, 2 * width), dh(rows, width), d_gate_up(rows, 2 * width);
  bench::RunVersus(
      state, 20.0 * static_cast<double>(rows * width), false,
      [&] { SwigluBackward(gate_up.view(), dh.view(), d_gate_up.view()); },
      [&] {
        Baseline()->swiglu_backward(gate_up.data(), dh.data(), d_gate_up.data(), rows, width);
      });
}
BENCHMARK(BM_SwigluBackward)->Apply(Shapes);

}  // namespace
}  // namespace lanewise::kernels
