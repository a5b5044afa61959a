#include "kernels/token_shift.h"

#include <benchmark/benchmark.h>

#include <cstddef>

#include "hwy/aligned_allocator.h"

namespace lanewise::kernels {
namespace {

struct Sequence {
  explicit Sequence(const benchmark::State& state)
      : steps(static_cast<size_t>(state.range(0))),
        channels(static_cast<size_t>(state.range(1))),
        params(6 * channels, 0.3f),
        rows(8 * steps * channels, 1.0f),
        sums(6 * channels) {}
  Mat<float> Rows(size_t which) {
    return {rows.data() + which * steps * channels, steps, channels, channels};
  }
  TokenShiftParams<const float> Params() const {
    const std::span<const float> p(params);
    const auto row = [&](size_t i) { return p.subspan(i * channels, channels); };
    return {row(0), row(1), row(2), row(3), row(4), row(5)};
  }
  // Rows that go in or out once.
  void CountBytes(benchmark::State& state, size_t matrices) const {
    state.counters["bytes"] = benchmark::Counter(
        static_cast<double>(matrices * steps * channels * sizeof(float)),
        benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1024);
  }

  size_t steps, channels;
  // As activations lie in a model: a vector that crosses two cache lines costs twice.
  hwy::AlignedVector<float> params, rows, sums;
};

void BM_TokenShiftForward(benchmark::State& state) {
  Sequence s(state);
  for (auto _ : state) {
    TokenShiftForward(s.Rows(0), {}, s.Params(), 0, s.steps, s.Rows(1), s.Rows(2), s.Rows(3));
    benchmark::ClobberMemory();
  }
  s.CountBytes(state, 4);
}

void BM_TokenShiftBackward(benchmark::State& state) {
  Sequence s(state);
  const Mat<float> sums{s.sums.data(), 6, s.channels, s.channels};
  for (auto _ : state) {
    TokenShiftBackward(s.Rows(0), {}, s.Params(), s.Rows(1), s.Rows(2), s.Rows(3), 0, s.steps, {},
                       s.Rows(4), sums);
    benchmark::ClobberMemory();
  }
  s.CountBytes(state, 5);
}

void BM_ChannelShiftForward(benchmark::State& state) {
  Sequence s(state);
  for (auto _ : state) {
    ChannelShiftForward(s.Rows(0), {}, s.Params().w1, 0, s.steps, s.Rows(1));
    benchmark::ClobberMemory();
  }
  s.CountBytes(state, 2);
}

void BM_ChannelShiftBackward(benchmark::State& state) {
  Sequence s(state);
  const Mat<float> sums{s.sums.data(), 1, s.channels, s.channels};
  for (auto _ : state) {
    ChannelShiftBackward(s.Rows(0), {}, s.Params().w1, s.Rows(1), 0, s.steps, {}, s.Rows(2), sums);
    benchmark::ClobberMemory();
  }
  s.CountBytes(state, 3);
}

void Shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"T", "E"});
  b->Args({1, 384})->Args({128, 128})->Args({256, 256})->Args({512, 384})->Args({97, 40});
}
BENCHMARK(BM_TokenShiftForward)->Apply(Shapes);
BENCHMARK(BM_TokenShiftBackward)->Apply(Shapes);
BENCHMARK(BM_ChannelShiftForward)->Apply(Shapes);
BENCHMARK(BM_ChannelShiftBackward)->Apply(Shapes);

}  // namespace
}  // namespace lanewise::kernels
