#include "kernels/cached_attention.h"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <random>
#include <vector>

namespace lanewise::kernels {
namespace {

// All heads of one layer, one after the other: n tokens at the end of a cache of `length` rows.
void BM_CachedAttention(benchmark::State& state) {
  const auto tokens = static_cast<size_t>(state.range(0));
  const auto length = static_cast<size_t>(state.range(1));
  const auto head_dim = static_cast<size_t>(state.range(2));
  const auto heads = static_cast<size_t>(state.range(3));
  const auto kv_heads = static_cast<size_t>(state.range(4));
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  std::vector<float> q(tokens * heads * head_dim);
  std::vector<float> k(length * kv_heads * head_dim);
  std::vector<float> v(k.size());
  for (auto* m : {&q, &k, &v}) {
    for (float& x : *m) x = normal(rng);
  }
  std::vector<float> out(q.size());
  std::vector<float> scratch(CachedAttentionScratch(tokens, heads, head_dim));
  const Mat<const float> km = {k.data(), length, kv_heads * head_dim, kv_heads * head_dim};
  const Mat<const float> vm = {v.data(), length, kv_heads * head_dim, kv_heads * head_dim};
  const Mat<const float> qm = {q.data(), tokens, heads * head_dim, heads * head_dim};
  const Mat<float> om = {out.data(), tokens, heads * head_dim, heads * head_dim};
  for (auto _ : state) {
    CachedAttentionForward(qm, km, vm, kv_heads, 0, length - tokens, om, scratch);
    benchmark::ClobberMemory();
  }
  const auto flops = 4.0 * static_cast<double>(tokens * heads * head_dim * length);
  state.counters["flops"] =
      benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
  const auto bytes = static_cast<double>((k.size() + v.size()) * sizeof(float));
  state.counters["bytes"] =
      benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_CachedAttention)
    ->ArgNames({"n", "length", "hd", "heads", "kv"})
    ->Args({1, 256, 48, 6, 6})
    ->Args({1, 256, 64, 12, 12})
    ->Args({1, 1024, 64, 12, 12})
    ->Args({1, 1024, 64, 12, 4})
    ->Args({1, 32768, 64, 12, 12})
    ->Args({8, 1024, 64, 12, 12})
    ->Args({64, 512, 64, 12, 12})
    ->Args({64, 1024, 64, 12, 4});

}  // namespace
}  // namespace lanewise::kernels
