#include "model/session.h"

#include <algorithm>
#include <limits>

#include "kernels/bfloat16.h"
#include "model/error.h"
#include "runtime/check.h"

namespace lanewise::model {

using runtime::StrCat;

// Chunks of a prompt below the longest: a short prompt, or the end of one, wastes little.
constexpr size_t kChunks[] = {16, 64};

struct Session::Runner {
  Runner(const Model& model, const runtime::Weights& weights, const runtime::Scheduler& scheduler,
         const GraphOptions& graph_options)
      : sequences(graph_options.sequences), steps(graph_options.steps) {
    ModelGraph built = model.Build(graph_options);
    auto graph = std::make_shared<const runtime::Graph>(std::move(built.graph));
    auto plan = std::make_shared<const runtime::Plan>(
        runtime::MakePlan(*graph, scheduler.All().max_workers()));
    ports = std::move(built);
    executor = std::make_unique<runtime::Executor>(graph, plan);
    executor->BindParameters(weights, nullptr);
  }
  size_t sequences, steps;
  ModelGraph ports;  // its graph has moved to the executor
  std::unique_ptr<runtime::Executor> executor;
};

Session::Session(const Model& model, const runtime::Weights& weights,
                 const runtime::Scheduler& scheduler, const SessionOptions& options)
    : model_(model), weights_(weights), scheduler_(scheduler), options_(options) {
  if (options_.cache_capacity == 0) options_.cache_capacity = model.context();
  const size_t streams = options_.streams;
  specs_ = model.state(
      {.half_weights = weights_.half != nullptr, .cache_capacity = options_.cache_capacity});
  size_t bytes = 0;
  for (const StateSpec& spec : specs_) {
    state_offset_.push_back(bytes);
    bytes += (streams * spec.Bytes() + 63) / 64 * 64;
  }
  const bool in_place =
      std::all_of(specs_.begin(), specs_.end(), [](const StateSpec& s) { return s.in_place; });
  states_[0] = runtime::Arena("model state", bytes);
  if (!in_place) states_[1] = runtime::Arena("model state", bytes);
  single_ = MakeRunner(1, 1);
  const size_t most = std::min(options_.prefill_steps, options_.cache_capacity);
  for (const size_t steps : kChunks) {
    if (steps < most) prefill_.push_back(MakeRunner(1, steps));
  }
  if (most > 1) prefill_.push_back(MakeRunner(1, most));
  if (streams > 1) several_ = MakeRunner(streams, 1);
  logits_.resize(streams * model.vocab_size());
  positions_.resize(streams);
  tokens_.resize(std::max(streams, most));
  starts_.resize(streams);
  lengths_.resize(streams);
}

std::shared_ptr<Session::Runner> Session::MakeRunner(size_t sequences, size_t steps) const {
  return std::make_shared<Runner>(model_, weights_, scheduler_,
                                  GraphOptions{.sequences = sequences,
                                               .steps = steps,
                                               .logits = true,
                                               .state = true,
                                               .half_weights = weights_.half != nullptr,
                                               .cache_capacity = options_.cache_capacity,
                                               .slide_cache = options_.slide});
}

void Session::Reset() {
  for (size_t s = 0; s < options_.streams; ++s) Reset(s);
}

void Session::CheckStream(size_t stream) const {
  LW_CHECK(stream < options_.streams, "session: stream ", stream, " of ", options_.streams);
}

// The embedding table is read at them without another look.
void Session::CheckTokens(std::span<const int32_t> tokens) const {
  for (const int32_t token : tokens) {
    LW_CHECK(token >= 0 && static_cast<size_t>(token) < model_.vocab_size(), "session: token ",
             token, " of ", model_.vocab_size());
  }
}

void Session::Reset(size_t stream) {
  CheckStream(stream);
  positions_[stream] = 0;
  for (size_t i = 0; i < specs_.size(); ++i) std::ranges::fill(State(i, stream, 1), std::byte{0});
}

std::span<std::byte> Session::State(size_t spec, size_t stream, size_t count, bool next) const {
  const StateSpec& s = specs_[spec];
  const size_t which = s.in_place ? 0 : next ? 1 - current_ : current_;
  return states_[which].As<std::byte>().subspan(state_offset_[spec] + stream * s.Bytes(),
                                                count * s.Bytes());
}

uint64_t Session::position(size_t stream) const {
  CheckStream(stream);
  return positions_[stream];
}

uint64_t Session::room(size_t stream) const {
  CheckStream(stream);
  if (model_.recurrent()) return std::numeric_limits<uint64_t>::max();
  // Where the cache slides, positions are still int32.
  const uint64_t last = options_.slide ? INT32_MAX : options_.cache_capacity;
  return last - std::min(positions_[stream], last);
}

// The streams from `stream` on, as many as the runner has sequences, with equally many tokens each.
// What their state becomes lies in the next buffer.
void Session::Run(Runner& runner, size_t stream, std::span<const int32_t> tokens) {
  const size_t count = runner.sequences, valid = tokens.size() / count;
  std::ranges::fill(tokens_, 0);
  std::ranges::copy(tokens, tokens_.begin());
  for (size_t s = 0; s < count; ++s) {
    starts_[s] = static_cast<int32_t>(positions_[stream + s]);
    lengths_[s] = static_cast<int32_t>(valid);
    positions_[stream + s] += valid;
  }
  const ModelGraph& m = runner.ports;
  runtime::Executor& executor = *runner.executor;
  executor.Bind(m.tokens, tokens_.data());
  if (m.starts) executor.Bind(m.starts, starts_.data());
  if (m.lengths) executor.Bind(m.lengths, lengths_.data());
  executor.Bind(m.logits, logits_.data() + stream * model_.vocab_size());
  for (size_t i = 0; i < specs_.size(); ++i) {
    executor.Bind(m.state_in[i], State(i, stream, count).data());
    executor.Bind(m.state_out[i], State(i, stream, count, /*next=*/true).data());
  }
  executor.Run(scheduler_.All(), options_.profiler);
}

// For the next of so many tokens: the longest chunk that they fill, or the shortest.
Session::Runner& Session::PrefillRunner(size_t tokens) const {
  if (tokens == 1 || prefill_.empty()) return *single_;
  for (size_t i = prefill_.size(); i-- > 0;) {
    if (prefill_[i]->steps <= tokens) return *prefill_[i];
  }
  return *prefill_.front();
}

size_t Session::Feed(std::span<const int32_t> tokens, size_t stream,
                     const std::function<bool(size_t fed)>& go_on) {
  CheckStream(stream);
  LW_CHECK(!tokens.empty(), "session: nothing to feed");
  if (tokens.size() > room(stream)) {
    throw UsageError(StrCat("the text of ", positions_[stream] + tokens.size(),
                            " tokens does not fit the context of ", options_.cache_capacity,
                            "; shorten it or use a longer --ctx"));
  }
  CheckTokens(tokens);
  size_t fed = 0;
  while (fed < tokens.size()) {
    Runner& runner = PrefillRunner(tokens.size() - fed);
    const size_t count = std::min(tokens.size() - fed, runner.steps);
    Run(runner, stream, tokens.subspan(fed, count));
    if (options_.streams == 1) {
      current_ = 1 - current_;
    } else {
      for (size_t i = 0; i < specs_.size(); ++i) {
        if (!specs_[i].in_place) {
          std::ranges::copy(State(i, stream, 1, /*next=*/true), State(i, stream, 1).begin());
        }
      }
    }
    fed += count;
    if (go_on && !go_on(fed)) break;
  }
  return fed;
}

void Session::Step(std::span<const int32_t> tokens) {
  const size_t count = tokens.size();
  LW_CHECK(count > 0 && count <= options_.streams, "session: ", count, " tokens for ",
           options_.streams, " streams");
  CheckTokens(tokens);
  for (size_t s = 0; s < count; ++s) {
    if (room(s) == 0) {
      throw UsageError(StrCat("the context of ", options_.cache_capacity, " tokens is full"));
    }
  }
  if (count > 1 && several_->sequences != count) several_ = MakeRunner(count, 1);
  Run(count == 1 ? *single_ : *several_, 0, tokens);
  current_ = 1 - current_;
}

void Session::CopyStream(size_t from, size_t to) {
  LW_CHECK(from < options_.streams && to < options_.streams && from != to, "session: copy of ",
           from, " to ", to, " of ", options_.streams, " streams");
  for (size_t i = 0; i < specs_.size(); ++i) {
    std::ranges::copy(State(i, from, 1), State(i, to, 1).begin());
  }
  const auto vocab = static_cast<std::ptrdiff_t>(model_.vocab_size());
  std::ranges::copy(logits(from), logits_.begin() + static_cast<std::ptrdiff_t>(to) * vocab);
  positions_[to] = positions_[from];
}

std::span<const float> Session::logits(size_t stream) const {
  CheckStream(stream);
  const size_t vocab = model_.vocab_size();
  return std::span<const float>(logits_).subspan(stream * vocab, vocab);
}

std::vector<TensorSource> Session::StateSources() const {
  LW_CHECK(options_.streams == 1, "session: the state of one stream can be saved, not of ",
           options_.streams);
  std::vector<TensorSource> sources;
  for (size_t i = 0; i < specs_.size(); ++i) {
    const StateSpec& spec = specs_[i];
    const std::span<const std::byte> bytes = State(i, 0, 1);
    const bool half = spec.dtype == runtime::DType::kBFloat16;
    sources.push_back({spec.name,
                       half ? DType::kBF16 : DType::kF32,
                       {spec.rows, spec.cols},
                       [bytes](const ByteSink& sink) { sink(bytes); }});
  }
  sources.push_back(MakeSource("logits", {logits_.size()}, logits_));
  return sources;
}

void Session::Restore(const std::vector<NamedTensor>& tensors, uint64_t position,
                      const std::string& where) {
  LW_CHECK(options_.streams == 1, "session: the state of one stream can be restored, not of ",
           options_.streams);
  const auto read = [&](const std::string& name, std::span<float> out) {
    const auto it = std::find_if(tensors.begin(), tensors.end(),
                                 [&](const NamedTensor& t) { return t.name == name; });
    if (it == tensors.end()) throw InputError(where + ": tensor \"" + name + "\" is missing");
    if (it->Elements() != out.size()) {
      throw InputError(StrCat(where, ": tensor \"", name, "\" has ", it->Elements(),
                              " values, this model's state has ", out.size()));
    }
    it->read(0, out);
  };
  for (size_t i = 0; i < specs_.size(); ++i) {
    const std::span<std::byte> state = State(i, 0, 1);
    if (specs_[i].dtype != runtime::DType::kBFloat16) {
      read(specs_[i].name, {reinterpret_cast<float*>(state.data()), specs_[i].Count()});
      continue;
    }
    std::vector<float> wide(specs_[i].Count());
    read(specs_[i].name, wide);
    auto* const half = reinterpret_cast<kernels::BFloat16*>(state.data());
    kernels::RoundToBFloat16(wide, {half, wide.size()});
  }
  read("logits", logits_);
  positions_[0] = position;
}

size_t Session::MemoryBytes() const {
  size_t bytes = states_[0].size() + states_[1].size() + logits_.size() * sizeof(float);
  const auto add = [&](const std::shared_ptr<Runner>& runner) {
    if (runner != nullptr) bytes += runner->executor->plan().arena_bytes;
  };
  add(single_);
  add(several_);
  for (const std::shared_ptr<Runner>& runner : prefill_) add(runner);
  return bytes;
}

}  // namespace lanewise::model
