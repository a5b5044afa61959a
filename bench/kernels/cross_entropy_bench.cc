#include "kernels/cross_entropy.h"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "bench/kernels/rows.h"

namespace lanewise::kernels {
namespace {

using bench::Baseline;
using bench::Rows;

// Logits are overwritten, so each turn starts from what the last one left: the work is the same.
void BM_CrossEntropyForwardBackward(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0));
  const auto cols = static_cast<size_t>(state.range(1));
  Rows logits(rows, cols), other(rows, cols), loss(1, rows);
  std::vector<int32_t> targets(rows);
  for (size_t r = 0; r < rows; ++r) targets[r] = static_cast<int32_t>(r * 7919 % cols);
  bench::RunVersus(
      state, 8.0 * static_cast<double>(rows * cols), true,
      [&] { CrossEntropyForwardBackward(logits.view(), targets, 0.0f, 1.0f, loss.span(), {}); },
      [&] {
        Baseline()->cross_entropy(other.data(), targets.data(), 1.0f, loss.data(), rows, cols);
      });
}
BENCHMARK(BM_CrossEntropyForwardBackward)
    ->ArgNames({"rows", "V"})
    ->Args({1024, 65})
    ->Args({192, 512})
    ->Args({24, 4096})
    ->Args({3, 32000})
    ->Args({1024, 32000})
    ->UseManualTime();

}  // namespace
}  // namespace lanewise::kernels
