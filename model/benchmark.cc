#include "model/benchmark.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "kernels/random.h"
#include "model/optimizer.h"
#include "model/session.h"
#include "model/train_step.h"
#include "runtime/arena.h"

namespace lanewise::model {

namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void FillTokens(std::span<int32_t> tokens, size_t vocab_size, uint32_t stream) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>(kernels::RandomBits({.seed = 1, .stream = stream}, i) % vocab_size);
  }
}

// One round of work between two probes of the peak. `flops` and `bytes` are those of a token.
struct Work {
  std::function<void()> run;
  double tokens = 0;
  double flops = 0;
  double bytes = 0;
};

BenchmarkResult Measure(const Work& work, const BenchmarkOptions& options) {
  work.run();  // warms up caches, pages and clocks
  std::vector<double> speeds, peaks, shares, bandwidths, bandwidth_shares;
  const auto probe = [](const std::function<double()>& f) { return f ? f() : 0.0; };
  double peak = probe(options.peak_gflops);
  double read = work.bytes > 0 ? probe(options.read_bandwidth) : 0;
  const double begin = Now();
  int64_t round = 0;
  while (options.steps > 0 ? round < options.steps : round < 3 || Now() - begin < options.seconds) {
    const double start = Now();
    work.run();
    const double speed = work.tokens / (Now() - start);
    const double next_peak = probe(options.peak_gflops);
    const double next_read = work.bytes > 0 ? probe(options.read_bandwidth) : 0;
    // The better of the probes around a round: a neighbor's burst during a probe must not flatter the share.
    const double best_peak = std::max(peak, next_peak);
    const double best_read = std::max(read, next_read);
    speeds.push_back(speed);
    peaks.push_back(best_peak);
    bandwidths.push_back(best_read);
    if (best_peak > 0) shares.push_back(speed * work.flops * 1e-9 / best_peak);
    if (best_read > 0) bandwidth_shares.push_back(speed * work.bytes * 1e-9 / best_read);
    peak = next_peak;
    read = next_read;
    ++round;
  }
  BenchmarkResult result;
  result.tokens_per_second = Median(speeds);
  result.gflops = result.tokens_per_second * work.flops * 1e-9;
  result.peak_gflops = Median(peaks);
  result.mfu = Median(shares);
  result.bandwidth_gbs = result.tokens_per_second * work.bytes * 1e-9;
  result.peak_bandwidth_gbs = Median(bandwidths);
  result.bandwidth_share = Median(bandwidth_shares);
  result.peak_memory_bytes = runtime::PeakResidentBytes();
  result.rounds = round;
  return result;
}

}  // namespace

BenchmarkResult BenchmarkTraining(const TrainPlan& plan, const runtime::Scheduler& scheduler,
                                  const BenchmarkOptions& options) {
  const auto model = MakeModel(plan.model, "the configuration");
  runtime::Arena weights("parameters", model->params().buffer_size() * sizeof(float));
  model->Initialize("default", 1, weights.Floats());
  const StepShape shape{.sequences = static_cast<size_t>(plan.batch),
                        .steps = static_cast<size_t>(plan.ctx),
                        .carry_state = plan.carry_state && model->recurrent(),
                        .dropout = static_cast<float>(plan.dropout),
                        .recompute_layers = plan.recompute == "layer"};
  TrainStep step(*model, scheduler, shape, options.profiler);
  Optimizer optimizer(model->params(), scheduler);
  const size_t rows = shape.sequences * shape.steps;
  std::vector<int32_t> inputs(rows), targets(rows);
  FillTokens(inputs, model->vocab_size(), 1);
  FillTokens(targets, model->vocab_size(), 2);
  int64_t n = 0;
  const Work work{.run =
                      [&] {
                        ++n;
                        step.Accumulate(weights.Floats().data(), inputs, targets,
                                        1.0F / static_cast<float>(rows), 1,
                                        static_cast<uint32_t>(n), 0);
                        const double squares = step.Finish();
                        optimizer.Update(n, {.lr = 1e-4, .weight_decay = 0.1},
                                         squares > 1 ? 1 / std::sqrt(squares) : 1.0,
                                         weights.Floats(), step.gradients());
                        if (step.shards() > 1) step.Zero();
                      },
                  .tokens = static_cast<double>(rows),
                  .flops = model->TrainFlopsPerToken(shape.steps)};
  return Measure(work, options);
}

BenchmarkResult BenchmarkPrefill(const Model& model, size_t tokens,
                                 const runtime::Scheduler& scheduler,
                                 const BenchmarkOptions& options) {
  runtime::Arena weights("parameters", model.params().buffer_size() * sizeof(float));
  model.Initialize("default", 1, weights.Floats());
  Session session(model, weights.Floats().data(), scheduler, {.cache_capacity = tokens});
  std::vector<int32_t> prompt(tokens);
  FillTokens(prompt, model.vocab_size(), 1);
  const Work work{.run =
                      [&] {
                        session.Reset();
                        session.Feed(prompt);
                      },
                  .tokens = static_cast<double>(tokens),
                  // The forward pass is a third of training; the head, counted here, runs once a chunk only.
                  .flops = model.TrainFlopsPerToken(tokens) / 3};
  return Measure(work, options);
}

BenchmarkResult BenchmarkDecoding(const Model& model, size_t streams, size_t tokens,
                                  const runtime::Scheduler& scheduler,
                                  const BenchmarkOptions& options) {
  runtime::Arena weights("parameters", model.params().buffer_size() * sizeof(float));
  model.Initialize("default", 1, weights.Floats());
  Session session(model, weights.Floats().data(), scheduler,
                  {.streams = streams, .cache_capacity = tokens + 1, .prefill_steps = 1});
  std::vector<int32_t> ids(streams);
  FillTokens(ids, model.vocab_size(), 1);
  const double weight_bytes = static_cast<double>(model.DecodeWeights()) * sizeof(float);
  const Work work{.run =
                      [&] {
                        session.Reset();
                        for (size_t i = 0; i < tokens; ++i) session.Step(ids);
                      },
                  .tokens = static_cast<double>(streams * tokens),
                  .flops = 2.0 * static_cast<double>(model.DecodeWeights()),
                  .bytes = weight_bytes / static_cast<double>(streams)};
  return Measure(work, options);
}

}  // namespace lanewise::model
