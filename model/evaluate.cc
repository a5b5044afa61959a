#include "model/evaluate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "model/error.h"
#include "runtime/arena.h"
#include "runtime/check.h"
#include "runtime/executor.h"

namespace lanewise::model {

namespace {
constexpr size_t kChunk = 512;         // steps of a recurrent model's pass
constexpr size_t kBatchTokens = 2048;  // rows of a pass over windows

constexpr uint64_t kAnyLength = std::numeric_limits<uint64_t>::max();

// Windows of one pass over a text.
struct PassShape {
  size_t steps = 0, sequences = 1, stride = 0;
};

PassShape ShapeOfPass(const Model& model, size_t ctx, size_t stride, uint64_t most_tokens) {
  if (model.recurrent()) return {.steps = kChunk, .sequences = 1, .stride = kChunk};
  const size_t window = ctx == 0 ? model.context() : ctx;
  if (stride > window) {
    throw UsageError(
        runtime::StrCat("--stride ", stride, " is longer than the window of ", window));
  }
  const uint64_t inputs = std::max<uint64_t>(most_tokens, 2) - 1;  // the last is only a target
  const auto steps = static_cast<size_t>(std::min<uint64_t>(window, inputs));
  const size_t step = stride == 0 ? steps : std::min(stride, steps);
  const uint64_t windows = inputs / step + (inputs % step > 0 ? 1 : 0);
  const uint64_t fitting = std::max<size_t>(1, kBatchTokens / steps);
  return {
      .steps = steps, .sequences = static_cast<size_t>(std::min(windows, fitting)), .stride = step};
}

ModelGraph BuildPass(const Model& model, const PassShape& shape, bool half_weights) {
  return model.Build({.sequences = shape.sequences,
                      .steps = shape.steps,
                      .losses = true,
                      .state = model.recurrent(),
                      .half_weights = half_weights});
}

}  // namespace

size_t PlanEvaluationMemory(const Model& model, size_t ctx, size_t workers, bool half_weights) {
  const ModelGraph pass = BuildPass(model, ShapeOfPass(model, ctx, 0, kAnyLength), half_weights);
  return runtime::MakePlan(pass.graph, workers).arena_bytes;
}

struct Evaluator::Impl {
  Impl(const Model& m, const runtime::Scheduler& s, const PassShape& shape, bool half_weights)
      : model(m),
        scheduler(s),
        steps(shape.steps),
        stride(shape.stride),
        sequences(shape.sequences) {
    ports = BuildPass(m, shape, half_weights);
    auto graph = std::make_shared<const runtime::Graph>(std::move(ports.graph));
    auto plan =
        std::make_shared<const runtime::Plan>(runtime::MakePlan(*graph, s.All().max_workers()));
    executor = std::make_unique<runtime::Executor>(graph, plan);
    inputs.resize(sequences * steps);
    targets.resize(sequences * steps);
    nll.resize(sequences * steps);
    if (m.recurrent()) {
      specs = m.state({});
      for (const StateSpec& spec : specs) {
        state[0].emplace_back(spec.Count());
        state[1].emplace_back(spec.Count());
      }
    }
    BindAll();
  }

  void BindAll() {
    executor->Bind(ports.tokens, inputs.data());
    executor->Bind(ports.targets, targets.data());
    executor->Bind(ports.scale, &scale);
    executor->Bind(ports.nll, nll.data());
    if (ports.lengths) executor->Bind(ports.lengths, &length);
  }

  // Rows [0, sequences): windows that begin at first, first + stride, ... Returns the counted
  // targets.
  void Fill(const TokenArray& tokens, uint64_t last, uint64_t first) {
    std::ranges::fill(inputs, 0);
    std::ranges::fill(targets, -1);
    length = static_cast<int32_t>(std::min<uint64_t>(steps, last - std::min(last, first)));
    for (size_t s = 0; s < sequences; ++s) {
      const uint64_t begin = first + s * stride;
      if (begin >= last) break;
      const size_t count = static_cast<size_t>(std::min<uint64_t>(steps, last - begin));
      tokens.Copy(begin, std::span(inputs).subspan(s * steps, count));
      // Targets that an earlier window counted are left out.
      const size_t skip = begin == 0 ? 0 : steps - stride;
      if (skip >= count) continue;
      tokens.Copy(begin + 1 + skip, std::span(targets).subspan(s * steps + skip, count - skip));
    }
  }

  const Model& model;
  const runtime::Scheduler& scheduler;
  size_t steps = 0, stride = 0, sequences = 0;
  ModelGraph ports;
  std::unique_ptr<runtime::Executor> executor;
  std::vector<int32_t> inputs, targets;
  std::vector<float> nll;
  float scale = 1;
  int32_t length = 0;
  std::vector<StateSpec> specs;
  std::vector<std::vector<float>> state[2];
};

Evaluator::Evaluator(const Model& model, const runtime::Scheduler& scheduler, size_t ctx,
                     size_t stride, bool half_weights, uint64_t most_tokens)
    : impl_(std::make_unique<Impl>(model, scheduler, ShapeOfPass(model, ctx, stride, most_tokens),
                                   half_weights)) {}

Evaluator::~Evaluator() = default;

size_t Evaluator::MemoryBytes() const { return impl_->executor->plan().arena_bytes; }

EvaluateResult Evaluator::Run(const runtime::Weights& weights, const TokenArray& tokens,
                              const EvaluateOptions& options) {
  Impl& m = *impl_;
  const uint64_t count = tokens.size();
  if (count < 2) throw InputError("evaluation needs at least two tokens");
  LW_CHECK(tokens.vocab_size() <= static_cast<int64_t>(m.model.vocab_size()),
           "evaluation: token ids below ", tokens.vocab_size(), " for a vocabulary of ",
           m.model.vocab_size());
  const uint64_t last = count - 1;  // inputs are tokens [0, last), targets the ones after
  m.executor->BindParameters(weights, nullptr);
  for (auto& copies : m.state) {
    for (auto& tensor : copies) std::ranges::fill(tensor, 0.0F);
  }
  EvaluateResult result;
  result.tokens = count;
  double sum = 0;
  size_t current = 0;
  for (uint64_t first = 0; first < last; first += m.sequences * m.stride) {
    m.Fill(tokens, last, first);
    for (size_t i = 0; i < m.specs.size(); ++i) {
      m.executor->Bind(m.ports.state_in[i], m.state[current][i].data());
      m.executor->Bind(m.ports.state_out[i], m.state[1 - current][i].data());
    }
    m.executor->Run(m.scheduler.All());
    current = 1 - current;
    for (size_t r = 0; r < m.nll.size(); ++r) {
      if (m.targets[r] < 0) continue;
      sum += static_cast<double>(m.nll[r]);
      ++result.targets;
      if (options.per_token) result.token_cross_entropy.push_back(m.nll[r]);
    }
    if (options.progress &&
        !options.progress(static_cast<double>(first) / static_cast<double>(last))) {
      break;
    }
  }
  result.cross_entropy = sum / static_cast<double>(result.targets);
  if (tokens.bytes > 0) {
    // The text's share of bytes per token carries over to a part of it.
    const double bytes_per_token =
        static_cast<double>(tokens.bytes) / static_cast<double>(tokens.size());
    result.bits_per_byte = result.cross_entropy / std::numbers::ln2 / bytes_per_token;
  }
  return result;
}

}  // namespace lanewise::model
