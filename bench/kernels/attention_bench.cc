#include "kernels/attention.h"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <random>
#include <span>
#include <vector>

namespace lanewise::kernels {
namespace {

// One sequence of a model with `heads` heads, of which one is computed: the strides are real.
struct Sequence {
  explicit Sequence(const benchmark::State& state)
      : tokens(static_cast<size_t>(state.range(0))),
        head_dim(static_cast<size_t>(state.range(1))),
        width(3 * head_dim * static_cast<size_t>(state.range(2))),
        qkv(tokens * width),
        dqkv(qkv.size()),
        out(tokens * width / 3),
        dout(out.size()),
        lse(tokens),
        delta(tokens),
        scratch(AttentionScratch(head_dim)) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    for (float& x : qkv) x = normal(rng);
    for (float& x : dout) x = normal(rng);
  }
  Mat<float> Columns(std::vector<float>& m, size_t third) {
    return Mat<float>{m.data(), tokens, width, width}.Cols(third * width / 3, head_dim);
  }
  Mat<float> Head(std::vector<float>& m) { return {m.data(), tokens, head_dim, width / 3}; }
  Mat<float> Row(std::vector<float>& m) { return {m.data(), 1, tokens, tokens}; }
  void Forward() {
    AttentionForward(Columns(qkv, 0), Columns(qkv, 1), Columns(qkv, 2), 0, tokens, Head(out), lse,
                     scratch);
  }
  // Each pair of a query and a key that it sees, once per product of head_dim.
  void CountFlops(benchmark::State& state, double products) {
    const double pairs = 0.5 * static_cast<double>(tokens * (tokens + 1));
    state.counters["flops"] =
        benchmark::Counter(2.0 * products * pairs * static_cast<double>(head_dim),
                           benchmark::Counter::kIsIterationInvariantRate);
  }

  size_t tokens, head_dim, width;
  std::vector<float> qkv, dqkv, out, dout, lse, delta, scratch;
};

void BM_AttentionForward(benchmark::State& state) {
  Sequence s(state);
  for (auto _ : state) {
    s.Forward();
    benchmark::ClobberMemory();
  }
  s.CountFlops(state, 2);
}

void BM_AttentionBackward(benchmark::State& state) {
  Sequence s(state);
  s.Forward();
  for (auto _ : state) {
    AttentionDelta(s.Head(s.out), s.Head(s.dout), s.delta);
    AttentionBackward(s.Columns(s.qkv, 0), s.Columns(s.qkv, 1), s.Columns(s.qkv, 2), s.Row(s.lse),
                      s.Row(s.delta), s.Head(s.dout), s.Columns(s.dqkv, 0), s.Columns(s.dqkv, 1),
                      s.Columns(s.dqkv, 2), s.scratch);
    benchmark::ClobberMemory();
  }
  s.CountFlops(state, 5);
}

void Shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"T", "hd", "heads"});
  b->Args({256, 64, 12})->Args({1024, 64, 12})->Args({8192, 64, 12});  // 42M, 110M
  b->Args({256, 48, 6})->Args({512, 8, 8});                            // 15M, 260K
  b->Args({64, 32, 4})->Args({128, 32, 4})->Args({256, 64, 6})->Args({1024, 128, 8});
}
BENCHMARK(BM_AttentionForward)->Apply(Shapes);
BENCHMARK(BM_AttentionBackward)->Apply(Shapes);

}  // namespace
}  // namespace lanewise::kernels
