#include "runtime/ops/wkv.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "kernels/reference/wkv.h"
#include "runtime/check.h"
#include "runtime/executor.h"
#include "tests/support/compare.h"
#include "tests/support/op_harness.h"

namespace lanewise::runtime {
namespace {

using kernels::reference::WkvValues;

std::vector<float> Random(size_t count, unsigned seed, float mean = 0.0F, float deviation = 1.0F) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(mean, deviation);
  std::vector<float> v(count);
  for (float& x : v) x = normal(rng);
  return v;
}

struct Problem {
  size_t sequences, steps, channels, slots;
  std::array<std::vector<float>, 4> raw;  // r, k, v, d
  std::vector<float> gates, params, scale, state, dry;
  std::vector<int32_t> lengths;

  Problem(size_t b, size_t t, size_t e, size_t s, bool partial)
      : sequences(b), steps(t), channels(e), slots(s) {
    for (unsigned i = 0; i < 4; ++i) raw[i] = Random(b * t * e, i + 1);
    gates = Random(b * t * 2 * s, 5);
    for (size_t row = 0; row < gates.size() / s; ++row) {
      const std::span<float> g(gates.data() + row * s, s);
      float sum = 0;
      for (float& x : g) sum += x = std::exp(x);
      for (float& x : g) x /= sum;
    }
    params = Random(2 * e, 6, 1.5F);
    scale.assign(e, 0.97F);
    state = Random(b * 2 * s * e, 7);
    for (float& x : state) x = std::fabs(x);
    dry = Random(b * t * e, 8);
    for (size_t q = 0; q < b; ++q) {
      lengths.push_back(static_cast<int32_t>(partial ? t * (q + 1) / (b + 1) : t));
    }
  }
  size_t Rows() const { return sequences * steps; }
};

struct Result {
  std::vector<float> ry, state, dgates, dparams;
  std::array<std::vector<float>, 4> draw;
};

enum class State { kNone, kSeparate, kInPlace };

Result Run(const Problem& p, State state, bool gradients, const Parallel& parallel,
           size_t workers) {
  Graph graph;
  const size_t n = p.Rows();
  const size_t e = p.channels;
  std::array<TensorId, 4> in, din, source;
  for (size_t i = 0; i < 4; ++i) {
    in[i] = graph.External("raw", n, e);
    din[i] = graph.External("d raw", n, e);
    source[i] = testing::Source(graph, in[i], din[i]);
  }
  const TensorId gates = graph.External("gates", n, 2 * p.slots);
  const TensorId dgates = graph.External("d gates", n, 2 * p.slots);
  const TensorId lengths = graph.External("lengths", p.sequences, 1, DType::kInt32);
  const TensorId state_in = graph.External("state", p.sequences * 2 * p.slots, e);
  const TensorId state_out = graph.External("state", p.sequences * 2 * p.slots, e);
  const TensorId ry = Wkv(graph, {.r = source[0],
                                  .k = source[1],
                                  .v = source[2],
                                  .d = source[3],
                                  .gates = testing::Source(graph, gates, dgates),
                                  .decay_base = graph.Parameter("decay_base", 0, 1, e, e),
                                  .time_first = graph.Parameter("time_first", e, 1, e, e),
                                  .decay_scale = graph.Constant("scale", 1, e, p.scale),
                                  .lengths = lengths,
                                  .state_in = state_in,
                                  .state_out = state_out,
                                  .sequences = p.sequences});
  const TensorId dry = graph.External("dry", n, e);
  const TensorId result = graph.External("ry", n, e);
  testing::Sink(graph, ry, dry, result);
  if (gradients) graph.Differentiate();
  const auto shared = std::make_shared<const Graph>(graph);
  Executor executor(shared, std::make_shared<const Plan>(MakePlan(*shared, workers)));
  Result out{.ry = std::vector<float>(n * e),
             .state = p.state,
             .dgates = std::vector<float>(n * 2 * p.slots),
             .dparams = std::vector<float>(2 * e, 1.0F),  // to be added to
             .draw = {}};
  for (size_t i = 0; i < 4; ++i) {
    out.draw[i].resize(n * e);
    executor.Bind(in[i], p.raw[i].data());
    executor.Bind(din[i], out.draw[i].data());
  }
  executor.Bind(gates, p.gates.data());
  executor.Bind(dgates, out.dgates.data());
  executor.Bind(lengths, p.lengths.data());
  if (state != State::kNone) {
    executor.Bind(state_in, state == State::kInPlace ? out.state.data() : p.state.data());
    executor.Bind(state_out, out.state.data());
  }
  executor.Bind(dry, p.dry.data());
  executor.Bind(result, out.ry.data());
  executor.BindParameters(p.params.data(), out.dparams.data());
  executor.Run(parallel);
  return out;
}

struct Exact {
  std::vector<double> ry, state, dgates, dparams;
  std::array<std::vector<double>, 4> draw;
};

// Each sequence alone, over its valid steps; what lies beyond is zero.
Exact Reference(const Problem& p, bool carried) {
  const size_t e = p.channels;
  const size_t s = p.slots;
  Exact exact{.ry = std::vector<double>(p.Rows() * e),
              .state = {},
              .dgates = std::vector<double>(p.gates.size()),
              .dparams = std::vector<double>(2 * e, 1.0),
              .draw = {}};
  for (auto& d : exact.draw) d.resize(p.Rows() * e);
  for (size_t q = 0; q < p.sequences; ++q) {
    const auto length = static_cast<size_t>(p.lengths[q]);
    WkvValues<double> in(length, e, s);
    const size_t first = q * p.steps;
    const auto from = [&](const std::vector<float>& x, std::vector<double>& to, size_t cols) {
      std::copy_n(x.begin() + static_cast<ptrdiff_t>(first * cols), length * cols, to.begin());
    };
    std::array<std::vector<double>*, 4> raw = {&in.r, &in.k, &in.v, &in.d};
    for (size_t i = 0; i < 4; ++i) from(p.raw[i], *raw[i], e);
    for (size_t i = 0; i < length * s; ++i) {
      in.write[i] = p.gates[(first + i / s) * 2 * s + i % s];
      in.read[i] = p.gates[(first + i / s) * 2 * s + s + i % s];
    }
    in.decay_base.assign(p.params.begin(), p.params.begin() + static_cast<ptrdiff_t>(e));
    in.time_first.assign(p.params.begin() + static_cast<ptrdiff_t>(e), p.params.end());
    in.decay_scale.assign(p.scale.begin(), p.scale.end());
    const auto state = p.state.begin() + static_cast<ptrdiff_t>(q * 2 * s * e);
    if (carried) in.state.assign(state, state + static_cast<ptrdiff_t>(2 * s * e));
    std::vector<double> dry(length * e);
    from(p.dry, dry, e);
    const auto out = kernels::reference::WkvForward(in);
    const auto grad = kernels::reference::WkvBackward(in, out, dry, std::vector<double>(2 * s * e));
    std::copy(out.ry.begin(), out.ry.end(), exact.ry.begin() + static_cast<ptrdiff_t>(first * e));
    exact.state.insert(exact.state.end(), out.states.end() - static_cast<ptrdiff_t>(2 * s * e),
                       out.states.end());
    const std::array<const std::vector<double>*, 4> draw = {&grad.r, &grad.k, &grad.v, &grad.d};
    for (size_t i = 0; i < 4; ++i) {
      std::copy(draw[i]->begin(), draw[i]->end(),
                exact.draw[i].begin() + static_cast<ptrdiff_t>(first * e));
    }
    for (size_t i = 0; i < length * s; ++i) {
      exact.dgates[(first + i / s) * 2 * s + i % s] = grad.write[i];
      exact.dgates[(first + i / s) * 2 * s + s + i % s] = grad.read[i];
    }
    for (size_t i = 0; i < e; ++i) {
      exact.dparams[i] += grad.decay_base[i];
      exact.dparams[e + i] += grad.time_first[i];
    }
  }
  return exact;
}

void CheckSame(const Result& a, const Result& b) {
  const auto same = [](const std::vector<float>& x, const std::vector<float>& y) {
    return testing::SameBits<const float, const float>(x, y);
  };
  CHECK(same(a.ry, b.ry));
  CHECK(same(a.state, b.state));
  CHECK(same(a.dgates, b.dgates));
  CHECK(same(a.dparams, b.dparams));
  for (size_t i = 0; i < 4; ++i) CHECK(same(a.draw[i], b.draw[i]));
}

void Check(size_t sequences, size_t steps, size_t channels, size_t slots, bool partial) {
  CAPTURE(sequences);
  CAPTURE(steps);
  CAPTURE(channels);
  CAPTURE(slots);
  CAPTURE(partial);
  const Problem p(sequences, steps, channels, slots, partial);
  for (const State state : {State::kNone, State::kSeparate, State::kInPlace}) {
    const Exact exact = Reference(p, state != State::kNone);
    const Result serial = Run(p, state, true, Parallel(), 1);
    const auto close = [](const std::vector<float>& a, const std::vector<double>& b, double limit) {
      CHECK(testing::RelativeL2Error<float, double>(a, b) < limit);
    };
    close(serial.ry, exact.ry, 2e-6);
    if (state != State::kNone) close(serial.state, exact.state, 2e-6);
    for (size_t i = 0; i < 4; ++i) close(serial.draw[i], exact.draw[i], 2e-5);
    close(serial.dgates, exact.dgates, 2e-5);
    close(serial.dparams, exact.dparams, 2e-5);
    for (const size_t threads : {2, 3, 8}) {
      const Scheduler scheduler(threads);
      CheckSame(Run(p, state, true, scheduler.All(), threads), serial);
    }
    const Result forward = Run(p, state, false, Parallel(), 1);
    CHECK(forward.ry == serial.ry);
    CHECK(forward.state == serial.state);
  }
}

TEST_CASE("wkv op: against the reference, the same bits for any number of threads") {
  Check(3, 1, 5, 1, false);
  Check(2, 100, 150, 4, false);
  Check(3, 70, 64, 3, true);
  Check(20, 9, 16, 2, true);
}

TEST_CASE("wkv op: few sequences run in chunks of time") {
  Check(1, 600, 70, 3, false);
  Check(2, 1100, 20, 8, true);  // chunks without a valid step among them
}

TEST_CASE("wkv op: shapes that do not fit are refused with a message") {
  Graph graph;
  WkvArgs args;
  for (TensorId* id : {&args.r, &args.k, &args.v, &args.d}) *id = graph.Activation("x", 12, 20);
  args.gates = graph.Activation("gates", 12, 6);
  for (TensorId* id : {&args.decay_base, &args.time_first, &args.decay_scale}) {
    *id = graph.Activation("p", 1, 20);
  }
  args.sequences = 5;
  CHECK_THROWS_WITH_AS(Wkv(graph, args), "wkv: 12 rows are not 5 equal sequences", CheckError);
  args.sequences = 3;
  WkvArgs wrong = args;
  wrong.k = graph.Activation("k", 12, 21);
  CHECK_THROWS_WITH_AS(Wkv(graph, wrong), "wkv: k is [12, 21], wanted [12, 20]", CheckError);
  wrong = args;
  wrong.gates = graph.Activation("gates", 12, 5);
  CHECK_THROWS_WITH_AS(Wkv(graph, wrong),
                       "wkv: gates have 5 columns; wanted twice the number of slots, 1 to 32",
                       CheckError);
  wrong = args;
  wrong.state_in = graph.External("state", 3, 20);
  CHECK_THROWS_WITH_AS(Wkv(graph, wrong), "wkv: state_in is [3, 20], wanted [18, 20]", CheckError);
  CHECK_NOTHROW(Wkv(graph, args));
}

}  // namespace
}  // namespace lanewise::runtime
