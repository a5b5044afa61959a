#include "kernels/rope.h"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <numeric>
#include <vector>

namespace lanewise::kernels {
namespace {

// Bytes are those of q and k, read and written.
void BM_RopeForward(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0));
  const auto heads = static_cast<size_t>(state.range(1));
  const auto head_dim = static_cast<size_t>(state.range(2));
  std::vector<float> table(rows * head_dim);
  RopeTable(10000.0, 0, {table.data(), rows, head_dim, head_dim});
  std::vector<int32_t> positions(rows);
  std::iota(positions.begin(), positions.end(), 0);
  // q, k and v side by side, as in a model; v is not touched.
  std::vector<float> qkv(rows * 3 * heads * head_dim, 1.0f);
  const Mat<float> qk = {qkv.data(), rows, 2 * heads * head_dim, 3 * heads * head_dim};
  for (auto _ : state) {
    RopeForward({table.data(), rows, head_dim, head_dim}, 0, positions, qk);
    benchmark::ClobberMemory();
  }
  const auto bytes = static_cast<double>(2 * sizeof(float) * qk.rows * qk.cols);
  state.counters["bytes"] = benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate,
                                               benchmark::Counter::kIs1024);
}
BENCHMARK(BM_RopeForward)
    ->ArgNames({"rows", "heads", "hd"})
    ->Args({64, 6, 48})
    ->Args({64, 12, 64})
    ->Args({1024, 12, 64});

}  // namespace
}  // namespace lanewise::kernels
