#include "runtime/ops/token_shift.h"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "kernels/reference/token_shift.h"
#include "runtime/check.h"
#include "runtime/executor.h"
#include "tests/support/compare.h"
#include "tests/support/op_harness.h"

namespace lanewise::runtime {
namespace {

using kernels::reference::ShiftParams;
using kernels::reference::ShiftRows;

std::vector<float> Random(size_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> v(count);
  for (float& x : v) x = normal(rng);
  return v;
}

struct Problem {
  size_t sequences, steps, channels;
  std::vector<float> n, params, token_carried, channel_carried;
  std::array<std::vector<float>, 4> dx;  // of r, k, v and the channel shift
  std::vector<int32_t> lengths;

  Problem(size_t b, size_t t, size_t e)
      : sequences(b),
        steps(t),
        channels(e),
        n(Random(b * t * e, 1)),
        params(Random(7 * e, 2)),
        token_carried(Random(b * 4 * e, 3)),
        channel_carried(Random(b * e, 4)) {
    for (unsigned i = 0; i < 4; ++i) dx[i] = Random(b * t * e, 5 + i);
    for (size_t q = 0; q < b; ++q) lengths.push_back(static_cast<int32_t>(t * (q + 1) / b));
  }
};

struct Result {
  std::array<std::vector<float>, 4> x;
  std::vector<float> dn, dparams, token_carried, channel_carried;
};

// Both shifts of one n, so that the second gradient is added to the first.
Result Run(const Problem& p, bool carried, const Parallel& parallel, size_t workers) {
  Graph graph;
  const size_t rows = p.sequences * p.steps;
  const size_t e = p.channels;
  const TensorId n = graph.External("n", rows, e);
  const TensorId dn = graph.External("dn", rows, e);
  const TensorId source = testing::Source(graph, n, dn);
  const auto param = [&](size_t i) { return graph.Parameter("p", i * e, 1, e, e); };
  const TensorId lengths = graph.External("lengths", p.sequences, 1, DType::kInt32);
  std::array<TensorId, 4> carry;  // token in and out, channel in and out
  for (size_t i = 0; i < 4; ++i) {
    carry[i] = graph.External("carried", p.sequences * (i < 2 ? 4 : 1), e);
  }
  const TokenShiftOutputs token = TokenShift(graph, {.n = source,
                                                     .w1 = param(0),
                                                     .w2 = param(1),
                                                     .w4 = param(2),
                                                     .mix_r = param(3),
                                                     .mix_k = param(4),
                                                     .mix_v = param(5),
                                                     .lengths = lengths,
                                                     .carried_in = carry[0],
                                                     .carried_out = carry[1],
                                                     .sequences = p.sequences});
  const TensorId channel = ChannelShift(graph, {.n = source,
                                                .mix = param(6),
                                                .lengths = lengths,
                                                .carried_in = carry[2],
                                                .carried_out = carry[3],
                                                .sequences = p.sequences});
  const std::array<TensorId, 4> x = {token.r, token.k, token.v, channel};
  std::array<TensorId, 4> result, dx;
  for (size_t i = 0; i < 4; ++i) {
    result[i] = graph.External("x", rows, e);
    dx[i] = graph.External("dx", rows, e);
    testing::Sink(graph, x[i], dx[i], result[i]);
  }
  graph.Differentiate();
  const auto shared = std::make_shared<const Graph>(graph);
  Executor executor(shared, std::make_shared<const Plan>(MakePlan(*shared, workers)));
  Result out;
  out.dn.resize(rows * e);
  out.dparams.assign(7 * e, 1.0F);  // to be added to
  out.token_carried.resize(p.token_carried.size());
  out.channel_carried.resize(p.channel_carried.size());
  for (size_t i = 0; i < 4; ++i) {
    out.x[i].resize(rows * e);
    executor.Bind(result[i], out.x[i].data());
    executor.Bind(dx[i], p.dx[i].data());
  }
  executor.Bind(n, p.n.data());
  executor.Bind(dn, out.dn.data());
  executor.Bind(lengths, p.lengths.data());
  if (carried) {
    executor.Bind(carry[0], p.token_carried.data());
    executor.Bind(carry[2], p.channel_carried.data());
  }
  executor.Bind(carry[1], out.token_carried.data());
  executor.Bind(carry[3], out.channel_carried.data());
  executor.BindParameters(p.params.data(), out.dparams.data());
  executor.Run(parallel);
  return out;
}

void CheckCarried(const Problem& p, size_t q, size_t back, const std::vector<double>& old,
                  const std::vector<float>& actual) {
  const size_t e = p.channels;
  std::vector<double> all = old;
  const auto first = p.n.begin() + static_cast<ptrdiff_t>(q * p.steps * e);
  all.insert(all.end(), first,
             first + static_cast<ptrdiff_t>(static_cast<size_t>(p.lengths[q]) * e));
  const std::vector<double> expected(all.end() - static_cast<ptrdiff_t>(back * e), all.end());
  const auto from = actual.begin() + static_cast<ptrdiff_t>(q * back * e);
  CHECK(std::vector<double>(from, from + static_cast<ptrdiff_t>(back * e)) == expected);
}

// One sequence's part of a vector of all of them, in double.
std::vector<double> Part(const std::vector<float>& all, size_t sequences, size_t q) {
  const size_t size = all.size() / sequences;
  const auto first = all.begin() + static_cast<ptrdiff_t>(q * size);
  return {first, first + static_cast<ptrdiff_t>(size)};
}

void CheckAgainstReference(const Problem& p, bool carried, const Result& actual) {
  const size_t e = p.channels;
  ShiftParams<double> params;
  for (size_t i = 0; i < 6; ++i) params[i] = Part(p.params, 7, i);
  const std::vector<double> mix = Part(p.params, 7, 6);
  std::vector<double> dparams(7 * e, 1.0);
  const auto close = [](const std::vector<double>& a, const std::vector<double>& b, double limit) {
    CHECK(testing::RelativeL2Error<double, double>(a, b) < limit);
  };
  for (size_t q = 0; q < p.sequences; ++q) {
    ShiftRows<double> token{e, Part(p.token_carried, p.sequences, q), Part(p.n, p.sequences, q)};
    ShiftRows<double> channel{e, Part(p.channel_carried, p.sequences, q), token.n};
    if (!carried) {
      token.carried.assign(4 * e, 0.0);
      channel.carried.assign(e, 0.0);
    }
    const auto x = kernels::reference::TokenShiftForward(token, params);
    for (size_t z = 0; z < 3; ++z) close(Part(actual.x[z], p.sequences, q), x[z], 1e-6);
    close(Part(actual.x[3], p.sequences, q), kernels::reference::ChannelShiftForward(channel, mix),
          1e-6);
    std::vector<double> dn;
    std::vector<double> channel_dn;
    const std::array<std::vector<double>, 3> dx = {Part(p.dx[0], p.sequences, q),
                                                   Part(p.dx[1], p.sequences, q),
                                                   Part(p.dx[2], p.sequences, q)};
    const auto grads = kernels::reference::TokenShiftBackward(token, params, dx, dn);
    const auto mix_grad = kernels::reference::ChannelShiftBackward(
        channel, mix, Part(p.dx[3], p.sequences, q), channel_dn);
    for (size_t i = 0; i < dn.size(); ++i) dn[i] += channel_dn[i];
    close(Part(actual.dn, p.sequences, q), dn, 1e-6);
    for (size_t i = 0; i < 6 * e; ++i) dparams[i] += grads[i / e][i % e];
    for (size_t i = 0; i < e; ++i) dparams[6 * e + i] += mix_grad[i];
    CheckCarried(p, q, 4, token.carried, actual.token_carried);
    CheckCarried(p, q, 1, channel.carried, actual.channel_carried);
  }
  close({actual.dparams.begin(), actual.dparams.end()}, dparams, 5e-6);
}

void Check(size_t sequences, size_t steps, size_t channels) {
  CAPTURE(sequences);
  CAPTURE(steps);
  CAPTURE(channels);
  const Problem p(sequences, steps, channels);
  for (const bool carried : {false, true}) {
    const Result serial = Run(p, carried, Parallel(), 1);
    CheckAgainstReference(p, carried, serial);
    for (const size_t threads : {2, 3, 8}) {
      const Scheduler scheduler(threads);
      const Result parallel = Run(p, carried, scheduler.All(), threads);
      for (size_t i = 0; i < 4; ++i) CHECK(parallel.x[i] == serial.x[i]);
      CHECK(parallel.dn == serial.dn);
      CHECK(parallel.dparams == serial.dparams);
      CHECK(parallel.token_carried == serial.token_carried);
      CHECK(parallel.channel_carried == serial.channel_carried);
    }
  }
}

TEST_CASE("token_shift op: against the reference, the same bits for any number of threads") {
  Check(1, 1, 3);
  Check(2, 3, 20);
  Check(5, 17, 33);
  Check(2, 1200, 70);  // several blocks of rows
}

TEST_CASE("token_shift op: shapes that do not fit are refused with a message") {
  Graph graph;
  const TensorId n = graph.Activation("n", 12, 20);
  const TensorId p = graph.Parameter("p", 0, 1, 20, 20);
  const TensorId wrong = graph.Parameter("w2", 0, 1, 21, 21);
  TokenShiftArgs args{.n = n,
                      .w1 = p,
                      .w2 = p,
                      .w4 = p,
                      .mix_r = p,
                      .mix_k = p,
                      .mix_v = p,
                      .lengths = {},
                      .carried_in = {},
                      .carried_out = {},
                      .sequences = 7};
  CHECK_THROWS_WITH_AS(TokenShift(graph, args), "token_shift: 12 rows are not 7 equal sequences",
                       CheckError);
  args.sequences = 2;
  args.w2 = wrong;
  CHECK_THROWS_WITH_AS(TokenShift(graph, args), "token_shift: w2 is [1, 21], wanted [1, 20]",
                       CheckError);
  CHECK_THROWS_WITH_AS(ChannelShift(graph, {.n = n,
                                            .mix = p,
                                            .lengths = {},
                                            .carried_in = graph.External("rows", 4, 20),
                                            .carried_out = {},
                                            .sequences = 2}),
                       "channel_shift: rows is [4, 20], wanted [2, 20]", CheckError);
}

}  // namespace
}  // namespace lanewise::runtime
