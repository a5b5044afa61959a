#include "kernels/rms_norm.h"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "bench/kernels/rows.h"

namespace lanewise::kernels {
namespace {

using bench::Baseline;
using bench::Rows;

void BM_RmsNormForward(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0));
  const auto cols = static_cast<size_t>(state.range(1));
  Rows x(rows, cols), y(rows, cols), w(1, cols), rstd(1, rows);
  bench::RunVersus(
      state, 8.0 * static_cast<double>(rows * cols), false,
      [&] { RmsNormForward(x.view(), w.span(), 1e-5f, y.view(), rstd.span()); },
      [&] {
        Baseline()->rms_norm_forward(x.data(), w.data(), 1e-5f, y.data(), rstd.data(), rows, cols);
      });
}
BENCHMARK(BM_RmsNormForward)->Apply(bench::RowShapes);

void BM_RmsNormBackward(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0));
  const auto cols = static_cast<size_t>(state.range(1));
  Rows x(rows, cols), dy(rows, cols), dx(rows, cols), w(1, cols), rstd(1, rows, 1), dw(1, cols);
  bench::RunVersus(
      state, 12.0 * static_cast<double>(rows * cols), false,
      [&] { RmsNormBackward(x.view(), w.span(), rstd.span(), dy.view(), dx.view(), dw.span()); },
      [&] {
        Baseline()->rms_norm_backward(x.data(), w.data(), rstd.data(), dy.data(), dx.data(),
                                      dw.data(), rows, cols);
      });
}
BENCHMARK(BM_RmsNormBackward)->Apply(bench::RowShapes);

}  // namespace
}  // namespace lanewise::kernels
