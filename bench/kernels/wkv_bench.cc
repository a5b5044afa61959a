#include "kernels/wkv.h"

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstddef>
#include <random>

#include "hwy/aligned_allocator.h"

namespace lanewise::kernels {
namespace {

// As activations lie in a model: a vector that crosses two cache lines costs twice.
using Floats = hwy::AlignedVector<float>;

// One sequence of a whole layer on one thread.
struct Sequence {
  explicit Sequence(const benchmark::State& state)
      : steps(static_cast<size_t>(state.range(0))),
        channels(static_cast<size_t>(state.range(1))),
        slots(static_cast<size_t>(state.range(2))),
        raw(4 * steps * channels),
        gates(2 * steps * slots, 1.0f / static_cast<float>(slots)),
        params(3 * channels),
        results(3 * steps * channels),
        states((WkvCheckpoints(steps) + 1) * 2 * slots * channels),
        dry(steps * channels),
        grads(4 * steps * channels),
        gate_grads(2 * steps * slots),
        param_grads(2 * channels),
        scratch(WkvBackwardScratch(slots)) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    for (float& x : raw) x = normal(rng);
    for (float& x : dry) x = normal(rng);
    for (size_t i = 0; i < channels; ++i) {
      params[i] = 2.5f;
      params[channels + i] = -1.0f;
      params[2 * channels + i] = std::exp(-1.0f / 16);
    }
  }
  Mat<float> Tokens(Floats& m, size_t which) {
    return {m.data() + which * steps * channels, steps, channels, channels};
  }
  Mat<float> Gate(Floats& m, size_t which) {
    return {m.data() + which * slots, steps, slots, 2 * slots};
  }
  WkvInputs Inputs() {
    const std::span<const float> p(params);
    return {Tokens(raw, 0),  Tokens(raw, 1), Tokens(raw, 2),    Tokens(raw, 3),
            Gate(gates, 0),  Gate(gates, 1), p.first(channels), p.subspan(channels, channels),
            p.last(channels)};
  }
  WkvSave<float> Save() {
    const size_t rows = WkvCheckpoints(steps) * 2 * slots;
    return {Tokens(results, 1), Tokens(results, 2), {states.data(), rows, channels, channels}};
  }
  Mat<float> State() {
    const size_t rows = 2 * slots;
    return {states.data() + states.size() - rows * channels, rows, channels, channels};
  }
  void Forward(bool save) {
    WkvForward(Inputs(), steps, {}, Tokens(results, 0), State(), save ? Save() : WkvSave<float>{});
  }
  // ops: multiplications and additions of the recurrence, a fused one counting as two.
  void Count(benchmark::State& state, size_t flops_per_slot) const {
    const auto tokens = static_cast<double>(steps * channels);
    state.counters["flops"] =
        benchmark::Counter(tokens * static_cast<double>(slots * flops_per_slot),
                           benchmark::Counter::kIsIterationInvariantRate);
    state.counters["channels"] =
        benchmark::Counter(tokens, benchmark::Counter::kIsIterationInvariantRate);
  }

  size_t steps, channels, slots;
  Floats raw, gates, params, results, states, dry, grads, gate_grads, param_grads, scratch;
};

void BM_WkvForward(benchmark::State& state) {
  Sequence s(state);
  for (auto _ : state) {
    s.Forward(true);
    benchmark::ClobberMemory();
  }
  s.Count(state, 10);
}

void BM_WkvBackward(benchmark::State& state) {
  Sequence s(state);
  s.Forward(true);
  const std::span<float> p(s.param_grads);
  const WkvGradients out = {s.Tokens(s.grads, 0), s.Tokens(s.grads, 1),    s.Tokens(s.grads, 2),
                            s.Tokens(s.grads, 3), s.Gate(s.gate_grads, 0), s.Gate(s.gate_grads, 1),
                            p.first(s.channels),  p.last(s.channels),      {}};
  for (auto _ : state) {
    WkvBackward(s.Inputs(), s.steps, s.Save(), {}, s.Tokens(s.dry, 0), out, s.scratch);
    benchmark::ClobberMemory();
  }
  s.Count(state, 24);
}

void BM_WkvDecode(benchmark::State& state) {
  Sequence s(state);
  for (auto _ : state) {
    WkvForward(s.Inputs(), 1, s.State(), s.Tokens(s.results, 0), s.State(), {});
    benchmark::ClobberMemory();
  }
  s.Count(state, 10);
}

void Shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"T", "E", "S"});
  b->Args({64, 64, 2})->Args({128, 128, 4})->Args({256, 256, 4})->Args({512, 384, 8});
  b->Args({512, 384, 16})->Args({97, 40, 3});
}
BENCHMARK(BM_WkvForward)->Apply(Shapes);
BENCHMARK(BM_WkvBackward)->Apply(Shapes);
BENCHMARK(BM_WkvDecode)->ArgNames({"T", "E", "S"})->Args({1, 128, 4})->Args({1, 384, 8});

}  // namespace
}  // namespace lanewise::kernels
