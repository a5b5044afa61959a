#include "kernels/embedding.h"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "bench/kernels/rows.h"

namespace lanewise::kernels {
namespace {

using bench::Baseline;
using bench::Rows;

void BM_EmbeddingForward(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0));
  const auto cols = static_cast<size_t>(state.range(1));
  constexpr size_t kVocab = 256;
  Rows table(kVocab, cols), y(rows, cols);
  std::vector<int32_t> ids(rows);
  for (size_t r = 0; r < rows; ++r) ids[r] = static_cast<int32_t>(r * 7919 % kVocab);
  bench::RunVersus(state, 8.0 * static_cast<double>(rows * cols), false,
                   [&] { EmbeddingForward(table.view(), ids, y.view()); });
}
BENCHMARK(BM_EmbeddingForward)->Apply(bench::RowShapes);

void BM_EmbeddingBackward(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0));
  const auto cols = static_cast<size_t>(state.range(1));
  constexpr size_t kVocab = 256;
  Rows dtable(kVocab, cols), dy(rows, cols);
  std::vector<int32_t> ids(rows);
  for (size_t r = 0; r < rows; ++r) ids[r] = static_cast<int32_t>(r * 7919 % kVocab);
  bench::RunVersus(
      state, 12.0 * static_cast<double>(rows * cols), false,
      [&] { EmbeddingBackward(ids, dy.view(), dtable.view()); },
      [&] { Baseline()->embedding_backward(ids.data(), dy.data(), dtable.data(), rows, cols); });
}
BENCHMARK(BM_EmbeddingBackward)->Apply(bench::RowShapes);

}  // namespace
}  // namespace lanewise::kernels
