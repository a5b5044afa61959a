#include "kernels/layer_norm.h"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "bench/kernels/rows.h"

namespace lanewise::kernels {
namespace {

using bench::Baseline;
using bench::Rows;

void BM_LayerNormForward(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0));
  const auto cols = static_cast<size_t>(state.range(1));
  Rows x(rows, cols), y(rows, cols), w(1, cols), b(1, cols), mean(1, rows), rstd(1, rows);
  bench::RunVersus(
      state, 8.0 * static_cast<double>(rows * cols), false,
      [&] {
        LayerNormForward(x.view(), w.span(), b.span(), 1e-6f, y.view(), mean.span(), rstd.span());
      },
      [&] {
        Baseline()->layer_norm_forward(x.data(), w.data(), b.data(), 1e-6f, y.data(), mean.data(),
                                       rstd.data(), rows, cols);
      });
}
BENCHMARK(BM_LayerNormForward)->Apply(bench::RowShapes);

void BM_LayerNormBackward(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0));
  const auto cols = static_cast<size_t>(state.range(1));
  Rows x(rows, cols), dy(rows, cols), dx(rows, cols), w(1, cols), mean(1, rows), rstd(1, rows, 1);
  Rows dw(1, cols), db(1, cols);
  bench::RunVersus(
      state, 12.0 * static_cast<double>(rows * cols), false,
      [&] {
        LayerNormBackward(x.view(), w.span(), mean.span(), rstd.span(), dy.view(), dx.view(),
                          dw.span(), db.span());
      },
      [&] {
        Baseline()->layer_norm_backward(x.data(), w.data(), mean.data(), rstd.data(), dy.data(),
                                        dx.data(), dw.data(), db.data(), rows, cols);
      });
}
BENCHMARK(BM_LayerNormBackward)->Apply(bench::RowShapes);

}  // namespace
}  // namespace lanewise::kernels
