#include "model/session.h"

#include <algorithm>
#include <limits>

#include "model/error.h"
#include "runtime/check.h"

namespace lanewise::model {

using runtime::StrCat;

struct Session::Runner {
  Runner(const Model& model, const runtime::Weights& weights, const runtime::Scheduler& scheduler,
         size_t sequences, size_t steps_in, const SessionOptions& options)
      : steps(steps_in) {
    ModelGraph built = model.Build({.sequences = sequences,
                                    .steps = steps,
                                    .logits = true,
                                    .state = true,
                                    .half_weights = weights.half != nullptr,
                                    .cache_capacity = options.cache_capacity,
                                    .slide_cache = options.slide});
    auto graph = std::make_shared<const runtime::Graph>(std::move(built.graph));
    auto plan = std::make_shared<const runtime::Plan>(
        runtime::MakePlan(*graph, scheduler.All().max_workers()));
    ports = std::move(built);
    executor = std::make_unique<runtime::Executor>(graph, plan);
    executor->BindParameters(weights, nullptr);
  }
  size_t steps;
  ModelGraph ports;  // its graph has moved to the executor
  std::unique_ptr<runtime::Executor> executor;
};

Session::Session(const Model& model, const runtime::Weights& weights,
                 const runtime::Scheduler& scheduler, const SessionOptions& options)
    : model_(model), scheduler_(scheduler), options_(options) {
  if (options_.cache_capacity == 0) options_.cache_capacity = model.context();
  specs_ = model.state(options_.cache_capacity);
  size_t floats = 0;
  for (const StateSpec& spec : specs_) {
    state_offset_.push_back(floats);
    floats += (options_.streams * spec.Count() + 15) / 16 * 16;
  }
  const bool in_place =
      std::all_of(specs_.begin(), specs_.end(), [](const StateSpec& s) { return s.in_place; });
  states_[0] = runtime::Arena("model state", floats * sizeof(float));
  if (!in_place) states_[1] = runtime::Arena("model state", floats * sizeof(float));
  decode_ = std::make_shared<Runner>(model, weights, scheduler, options_.streams, 1, options_);
  if (options_.streams == 1 && options_.prefill_steps > 1) {
    const size_t steps = std::min(options_.prefill_steps, options_.cache_capacity);
    prefill_ = std::make_shared<Runner>(model, weights, scheduler, 1, steps, options_);
  }
  logits_.resize(options_.streams * model.vocab_size());
  tokens_.resize(std::max(options_.streams, options_.prefill_steps));
  starts_.resize(options_.streams);
  lengths_.resize(options_.streams);
  Reset();
}

void Session::Reset() {
  position_ = 0;
  for (const runtime::Arena& state : states_) std::ranges::fill(state.Floats(), 0.0F);
}

std::span<float> Session::State(size_t which, size_t spec) const {
  return states_[specs_[spec].in_place ? 0 : which].Floats().subspan(
      state_offset_[spec], options_.streams * specs_[spec].Count());
}

uint64_t Session::room() const {
  if (model_.recurrent() || options_.slide) return std::numeric_limits<uint64_t>::max();
  return options_.cache_capacity - std::min<uint64_t>(position_, options_.cache_capacity);
}

// `tokens` for each stream one after the other, `valid` of each are real.
void Session::Run(Runner& runner, std::span<const int32_t> tokens, size_t valid) {
  std::fill(tokens_.begin(), tokens_.end(), 0);
  std::copy(tokens.begin(), tokens.end(), tokens_.begin());
  std::fill(starts_.begin(), starts_.end(), static_cast<int32_t>(position_));
  std::fill(lengths_.begin(), lengths_.end(), static_cast<int32_t>(valid));
  const ModelGraph& m = runner.ports;
  runtime::Executor& executor = *runner.executor;
  executor.Bind(m.tokens, tokens_.data());
  if (m.starts) executor.Bind(m.starts, starts_.data());
  if (m.lengths) executor.Bind(m.lengths, lengths_.data());
  executor.Bind(m.logits, logits_.data());
  for (size_t i = 0; i < specs_.size(); ++i) {
    executor.Bind(m.state_in[i], State(current_, i).data());
    executor.Bind(m.state_out[i], State(1 - current_, i).data());
  }
  executor.Run(scheduler_.All());
  current_ = 1 - current_;
  position_ += valid;
}

void Session::Feed(std::span<const int32_t> tokens) {
  LW_CHECK(options_.streams == 1, "session: Feed is for one stream");
  LW_CHECK(!tokens.empty(), "session: nothing to feed");
  if (tokens.size() > room()) {
    throw UsageError(StrCat("the text of ", position_ + tokens.size(),
                            " tokens does not fit the context of ", options_.cache_capacity,
                            "; shorten it or use a longer --ctx"));
  }
  for (const int32_t token : tokens) {
    LW_CHECK(token >= 0 && static_cast<size_t>(token) < model_.vocab_size(), "session: token ",
             token, " of ", model_.vocab_size());
  }
  while (!tokens.empty()) {
    const bool chunk = prefill_ != nullptr && tokens.size() > 1;
    const size_t count = chunk ? std::min(tokens.size(), prefill_->steps) : 1;
    Run(chunk ? *prefill_ : *decode_, tokens.first(count), count);
    tokens = tokens.subspan(count);
  }
}

void Session::Step(std::span<const int32_t> tokens) {
  LW_CHECK(tokens.size() == options_.streams, "session: ", tokens.size(), " tokens for ",
           options_.streams, " streams");
  if (room() == 0) {
    throw UsageError(StrCat("the context of ", options_.cache_capacity, " tokens is full"));
  }
  Run(*decode_, tokens, 1);
}

std::span<const float> Session::logits(size_t stream) const {
  const size_t vocab = model_.vocab_size();
  return std::span<const float>(logits_).subspan(stream * vocab, vocab);
}

std::vector<TensorSource> Session::StateSources() const {
  std::vector<TensorSource> sources;
  for (size_t i = 0; i < specs_.size(); ++i) {
    sources.push_back(MakeSource(
        specs_[i].name, {options_.streams * specs_[i].rows, specs_[i].cols}, State(current_, i)));
  }
  sources.push_back(MakeSource("logits", {logits_.size()}, logits_));
  return sources;
}

void Session::Restore(const std::vector<NamedTensor>& tensors, uint64_t position,
                      const std::string& where) {
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
  for (size_t i = 0; i < specs_.size(); ++i) read(specs_[i].name, State(current_, i));
  read("logits", logits_);
  position_ = position;
}

void Session::CopyStateFrom(const Session& other) {
  LW_CHECK(specs_.size() == other.specs_.size() && &model_ == &other.model_,
           "session: the state is of another model");
  for (size_t i = 0; i < specs_.size(); ++i) {
    const std::span<const float> source = other.State(other.current_, i).first(specs_[i].Count());
    const std::span<float> all = State(current_, i);
    for (size_t s = 0; s < options_.streams; ++s) {
      std::ranges::copy(source, all.subspan(s * source.size()).begin());
    }
  }
  for (size_t s = 0; s < options_.streams; ++s) {
    std::ranges::copy(other.logits(0),
                      logits_.begin() + static_cast<std::ptrdiff_t>(s * model_.vocab_size()));
  }
  position_ = other.position_;
}

size_t Session::MemoryBytes() const {
  size_t bytes = states_[0].size() + states_[1].size() + logits_.size() * sizeof(float);
  for (const Runner* runner : {decode_.get(), prefill_.get()}) {
    if (runner != nullptr) bytes += runner->executor->plan().arena_bytes;
  }
  return bytes;
}

}  // namespace lanewise::model
