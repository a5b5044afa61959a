// Gradients of whole models, in float32 through the graph, against exact derivatives of an
// independent forward pass in double: odd sizes, long windows, carried states, lengths, dropout,
// recomputation, label smoothing.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "model/model.h"
#include "runtime/executor.h"
#include "runtime/parallel.h"
#include "runtime/plan.h"
#include "tests/model/reference/dual.h"
#include "tests/model/reference/llama_reference.h"
#include "tests/model/reference/slot_rnn_reference.h"

namespace lanewise::model {
namespace {

using testing::LlamaReference;
using testing::LlamaSizes;
using testing::Rows;
using testing::SlotRnnLayerState;
using testing::SlotRnnReference;
using testing::SlotRnnSizes;
using testing::ValueOf;
using testing::Weights;
using testing::WindowOptions;

constexpr size_t kLanes = 8;  // derivatives of one reference pass
using Dual = testing::Dual<kLanes>;
constexpr int32_t kVocabulary = 11;
constexpr double kTolerance = 1e-5;  // of the norm of a parameter's gradient; largest seen: 3.4e-6

struct Case {
  Json sizes;
  size_t sequences = 1;
  size_t steps = 1;
  bool state = false;  // carried in and out, with lengths
  float smoothing = 0;
  float dropout = 0;
  bool recompute = false;
};

// One window of a model with everything that the graph is bound to.
struct Window {
  explicit Window(const Case& c) : shape(c), model(MakeModel(c.sizes, "test")) {
    std::mt19937 random(17);
    std::normal_distribution<float> normal;
    weights.resize(model->params().buffer_size());
    model->Initialize("default", 3, weights);
    for (const Param& p : model->params().params()) {
      const float noise =
          p.is_vector ? 0.3F : 0.5F / std::sqrt(static_cast<float>(std::max(p.rows, p.cols)));
      const Mat<float> m = p.In(weights.data());
      for (size_t r = 0; r < p.rows; ++r) {
        for (float& w : m.RowSpan(r)) w += noise * normal(random);
      }
    }
    for (size_t q = 0; q < c.sequences; ++q) {
      // With several sequences: one of them empty, one short, one full.
      const size_t length =
          !c.state || c.sequences == 1 ? c.steps : c.steps * q / (c.sequences - 1);
      lengths.push_back(static_cast<int32_t>(length));
      for (size_t t = 0; t < c.steps; ++t) {
        tokens.push_back(static_cast<int32_t>(random() % kVocabulary));
        const bool counted = t < length && (t + 1 == length || random() % 5 != 0);
        targets.push_back(counted ? static_cast<int32_t>(random() % kVocabulary) : -1);
        count += counted ? 1 : 0;
      }
    }
    if (!c.state) return;
    for (const StateSpec& spec : model->state({})) {
      std::vector<float> values(c.sequences * spec.Count());
      for (float& x : values) x = normal(random);
      if (spec.name.ends_with("wkv")) {  // denominators are sums of exponentials
        for (size_t i = 0; i < values.size(); ++i) {
          if (i % spec.Count() >= spec.Count() / 2) values[i] = 0.1F + std::fabs(values[i]);
        }
      }
      state_in.push_back(values);
    }
    state_out = state_in;
  }

  WindowOptions Options(size_t sequence) const {
    return {.smoothing = static_cast<double>(shape.smoothing),
            .dropout = static_cast<double>(shape.dropout),
            .seed = (uint64_t{7} << 32) + 5,
            .step = 9,
            .first_row = 1000 + sequence * shape.steps};
  }
  std::span<const int32_t> Part(const std::vector<int32_t>& all, size_t sequence) const {
    return std::span(all).subspan(sequence * shape.steps, static_cast<size_t>(lengths[sequence]));
  }

  // The graph's mean loss; fills gradients and state_out.
  double Run() {
    ModelGraph m = model->Build({.sequences = shape.sequences,
                                 .steps = shape.steps,
                                 .losses = true,
                                 .gradients = true,
                                 .state = shape.state,
                                 .label_smoothing = shape.smoothing,
                                 .dropout = shape.dropout,
                                 .recompute_layers = shape.recompute});
    const runtime::Scheduler scheduler(2);
    auto graph = std::make_shared<const runtime::Graph>(std::move(m.graph));
    runtime::Executor executor(graph, std::make_shared<const runtime::Plan>(runtime::MakePlan(
                                          *graph, scheduler.All().max_workers())));
    std::vector<float> nll(tokens.size()), loss(tokens.size());
    const std::vector<int32_t> key{5, 7, 9, 1000};
    const float scale = 1.0F / static_cast<float>(count);
    gradients.assign(weights.size(), 0.0F);
    executor.Bind(m.tokens, tokens.data());
    executor.Bind(m.targets, targets.data());
    executor.Bind(m.scale, &scale);
    executor.Bind(m.nll, nll.data());
    executor.Bind(m.loss, loss.data());
    if (m.lengths) executor.Bind(m.lengths, lengths.data());
    if (m.random_key) executor.Bind(m.random_key, key.data());
    for (size_t i = 0; i < m.state_in.size(); ++i) {
      executor.Bind(m.state_in[i], state_in[i].data());
      executor.Bind(m.state_out[i], state_out[i].data());
    }
    executor.BindParameters(weights.data(), gradients.data());
    executor.Run(scheduler.All());
    double sum = 0;
    for (const float x : loss) sum += static_cast<double>(x);
    return sum / static_cast<double>(count);
  }

  Case shape;
  std::unique_ptr<Model> model;
  std::vector<float> weights, gradients;
  std::vector<int32_t> lengths, tokens, targets;
  std::vector<std::vector<float>> state_in, state_out;
  size_t count = 0;  // targets that are not -1
};

// The rows of sequence q of a carried tensor, from row `first` on.
template <typename T>
Rows<T> StateRows(const std::vector<float>& values, size_t rows, size_t cols, size_t q,
                  size_t first, size_t count) {
  Rows<T> result(count, std::vector<T>(cols));
  for (size_t r = 0; r < count; ++r) {
    for (size_t c = 0; c < cols; ++c) {
      result[r][c] =
          T(values.empty() ? 0.0 : static_cast<double>(values[(q * rows + first + r) * cols + c]));
    }
  }
  return result;
}

template <typename T>
std::vector<SlotRnnLayerState<T>> SlotRnnState(const Window& w, const SlotRnnSizes& sizes, size_t q,
                                               const std::vector<std::vector<float>>& tensors) {
  std::vector<SlotRnnLayerState<T>> state(sizes.layers);
  for (size_t l = 0; l < sizes.layers; ++l) {
    const auto tensor = [&](size_t i) {
      return w.shape.state ? tensors[3 * l + i] : std::vector<float>();
    };
    state[l].normed = StateRows<T>(tensor(0), 4, sizes.dim, q, 0, 4);
    state[l].num = StateRows<T>(tensor(1), 2 * sizes.slots, sizes.dim, q, 0, sizes.slots);
    state[l].den = StateRows<T>(tensor(1), 2 * sizes.slots, sizes.dim, q, sizes.slots, sizes.slots);
    state[l].channel = StateRows<T>(tensor(2), 1, sizes.dim, q, 0, 1)[0];
  }
  return state;
}

SlotRnnSizes SlotRnnSizesOf(const Json& j) {
  return {j["layers"], j["dim"], j["heads"], j["slots"]};
}
LlamaSizes LlamaSizesOf(const Json& j) {
  return {j["layers"], j["dim"], j["heads"], j["kv_heads"], j["tied"]};
}

// Largest difference of two states relative to the largest value.
double Distance(const Rows<double>& a, const Rows<double>& b) {
  double worst = 0, largest = 1e-30;
  for (size_t r = 0; r < a.size(); ++r) {
    for (size_t c = 0; c < a[r].size(); ++c) {
      worst = std::fmax(worst, std::fabs(a[r][c] - b[r][c]));
      largest = std::fmax(largest, std::fabs(b[r][c]));
    }
  }
  return worst / largest;
}

void CheckState(const Window& w, size_t q, const std::vector<SlotRnnLayerState<double>>& expected) {
  const auto got = SlotRnnState<double>(w, SlotRnnSizesOf(w.shape.sizes), q, w.state_out);
  for (size_t l = 0; l < got.size(); ++l) {
    CAPTURE(l);
    CHECK(Distance(got[l].normed, expected[l].normed) < 1e-5);
    CHECK(Distance(got[l].num, expected[l].num) < 1e-5);
    CHECK(Distance(got[l].den, expected[l].den) < 1e-5);
    CHECK(Distance({got[l].channel}, {expected[l].channel}) < 1e-5);
  }
}

// The reference's mean loss. In double it also checks the state that the graph left.
template <typename T>
T ReferenceLoss(const Window& w, const std::vector<T>& flat) {
  T sum(0);
  const Weights<T> weights{w.model->params(), flat};
  for (size_t q = 0; q < w.shape.sequences; ++q) {
    const auto tokens = w.Part(w.tokens, q);
    const auto targets = w.Part(w.targets, q);
    if (w.model->recurrent()) {
      const SlotRnnSizes sizes = SlotRnnSizesOf(w.shape.sizes);
      auto state = SlotRnnState<T>(w, sizes, q, w.state_in);
      sum += SlotRnnReference<T>(sizes, weights).Loss(tokens, targets, w.Options(q), state);
      if constexpr (std::is_same_v<T, double>) {
        if (w.shape.state) CheckState(w, q, state);
      }
    } else {
      sum += LlamaReference<T>(LlamaSizesOf(w.shape.sizes), weights)
                 .Loss(tokens, targets, w.Options(q));
    }
  }
  return sum / T(static_cast<double>(w.count));
}

// A direction in the space of weights: one entry, or all entries of one parameter with random
// signs.
struct Direction {
  const Param* param;
  std::vector<std::pair<size_t, double>> entries;  // of the flat buffer
};

std::vector<Direction> Directions(const ParamSet& params, size_t entries_each) {
  std::mt19937 random(23);
  std::vector<Direction> directions;
  for (const Param& p : params.params()) {
    const auto place = [&](size_t r, size_t c) { return p.offset + r * p.stride + c; };
    for (size_t i = 0; i < std::min(entries_each, p.Count()); ++i) {
      directions.push_back({&p, {{place(random() % p.rows, random() % p.cols), 1.0}}});
    }
    Direction all{&p, {}};
    for (size_t r = 0; r < p.rows; ++r) {
      for (size_t c = 0; c < p.cols; ++c)
        all.entries.emplace_back(place(r, c), random() % 2 == 0 ? 1.0 : -1.0);
    }
    directions.push_back(all);
  }
  return directions;
}

double Norm(const ParamSet& params, const std::vector<float>& gradients, const Param* only) {
  double sum = 0;
  for (const Param& p : params.params()) {
    if (only != nullptr && only != &p) continue;
    const Mat<const float> m = p.In(gradients.data());
    for (size_t r = 0; r < p.rows; ++r) {
      for (const float g : m.RowSpan(r)) sum += static_cast<double>(g) * static_cast<double>(g);
    }
  }
  return std::sqrt(sum);
}

// Exact derivatives of the mean loss along up to kLanes directions.
Dual Differentiate(const Window& w, std::span<const Direction> directions) {
  std::vector<Dual> flat(w.weights.begin(), w.weights.end());
  for (size_t lane = 0; lane < directions.size(); ++lane) {
    for (const auto& [place, weight] : directions[lane].entries) flat[place].d[lane] = weight;
  }
  return ReferenceLoss(w, flat);
}

// Every parameter: some entries, and one direction through all of them.
void CheckGradients(const Case& c, size_t entries_each) {
  Window w(c);
  INFO("sizes ", c.sizes.dump(), ", sequences ", c.sequences, ", steps ", c.steps, ", state ",
       c.state);
  const double loss = w.Run();
  const double expected = ReferenceLoss(w, std::vector<double>(w.weights.begin(), w.weights.end()));
  CHECK(loss == doctest::Approx(expected).epsilon(2e-6));
  const ParamSet& params = w.model->params();
  const double whole = Norm(params, w.gradients, nullptr);
  const std::vector<Direction> directions = Directions(params, entries_each);
  for (size_t i = 0; i < directions.size(); i += kLanes) {
    const auto part = std::span(directions).subspan(i, std::min(kLanes, directions.size() - i));
    const Dual exact = Differentiate(w, part);
    for (size_t lane = 0; lane < part.size(); ++lane) {
      const Direction& direction = part[lane];
      double got = 0;
      for (const auto& [place, weight] : direction.entries)
        got += weight * static_cast<double>(w.gradients[place]);
      INFO(direction.param->name, direction.entries.size() == 1 ? "" : " (all entries)");
      // The second term: gradients that are zero in theory, as that of a decay over a single step.
      const double allowed = kTolerance * Norm(params, w.gradients, direction.param) + 5e-8 * whole;
      CHECK(std::fabs(got - exact.d[lane]) <= allowed);
    }
  }
}

Json SlotRnnConfigOf(int dim, int heads, int slots, int rank, int layers = 2) {
  return {{"model", "slot_rnn"}, {"vocab_size", kVocabulary},
          {"layers", layers},    {"dim", dim},
          {"heads", heads},      {"ctx", 256},
          {"slots", slots},      {"decay_rank", rank},
          {"ffn_mult", 1.5}};
}

Json LlamaConfigOf(int width, int heads, int kv_heads, bool tied, int layers = 1) {
  return {{"model", "llama"},     {"vocab_size", kVocabulary},
          {"layers", layers},     {"dim", width * heads},
          {"heads", heads},       {"kv_heads", kv_heads},
          {"hidden_dim", 37},     {"ctx", 512},
          {"tied", tied},         {"norm_eps", 1e-5},
          {"rope_theta", 10000.0}};
}

TEST_CASE("slot_rnn: gradients and states, from zero state and carried") {
  CheckGradients({.sizes = SlotRnnConfigOf(20, 1, 3, 1), .steps = 1}, 4);
  CheckGradients({.sizes = SlotRnnConfigOf(20, 4, 1, 7), .steps = 5}, 5);
  CheckGradients(
      {.sizes = SlotRnnConfigOf(33, 3, 3, 7), .sequences = 2, .steps = 65, .smoothing = 0.1F}, 4);
  CheckGradients({.sizes = SlotRnnConfigOf(20, 2, 8, 1), .steps = 200}, 4);
  CheckGradients({.sizes = SlotRnnConfigOf(20, 4, 8, 7), .steps = 1, .state = true}, 4);
  CheckGradients({.sizes = SlotRnnConfigOf(20, 2, 3, 1), .sequences = 3, .steps = 5, .state = true},
                 5);
  CheckGradients({.sizes = SlotRnnConfigOf(33, 1, 1, 7),
                  .sequences = 3,
                  .steps = 65,
                  .state = true,
                  .smoothing = 0.1F},
                 3);
  CheckGradients(
      {.sizes = SlotRnnConfigOf(35, 5, 8, 3, 1), .sequences = 2, .steps = 200, .state = true}, 4);
}

TEST_CASE("slot_rnn: dropout and recomputation") {
  CheckGradients({.sizes = SlotRnnConfigOf(20, 2, 3, 4),
                  .sequences = 2,
                  .steps = 37,
                  .smoothing = 0.1F,
                  .dropout = 0.2F,
                  .recompute = true},
                 4);
}

TEST_CASE("llama: gradients over window lengths") {
  for (const size_t steps : {1, 2, 63, 64}) {
    CheckGradients({.sizes = LlamaConfigOf(6, 4, 2, steps % 2 == 0), .steps = steps}, 5);
  }
  CheckGradients({.sizes = LlamaConfigOf(6, 4, 4, true, 2), .sequences = 2, .steps = 65}, 5);
  CheckGradients({.sizes = LlamaConfigOf(8, 3, 1, false), .steps = 300}, 4);
}

TEST_CASE("llama: gradients over head widths and kv heads") {
  CheckGradients({.sizes = LlamaConfigOf(2, 4, 1, true, 2), .steps = 65}, 5);
  CheckGradients({.sizes = LlamaConfigOf(24, 2, 1, false), .sequences = 2, .steps = 17}, 4);
  CheckGradients({.sizes = LlamaConfigOf(48, 2, 2, true), .steps = 33}, 4);
  CheckGradients({.sizes = LlamaConfigOf(64, 2, 2, true), .steps = 17}, 4);
  CheckGradients({.sizes = LlamaConfigOf(80, 1, 1, true), .steps = 33}, 4);
  CheckGradients({.sizes = LlamaConfigOf(128, 1, 1, false), .steps = 9}, 4);
}

TEST_CASE("llama: dropout and recomputation") {
  CheckGradients({.sizes = LlamaConfigOf(6, 4, 2, true, 2),
                  .sequences = 3,
                  .steps = 31,
                  .smoothing = 0.1F,
                  .dropout = 0.3F,
                  .recompute = true},
                 5);
}

TEST_CASE("the references' derivatives are those of differences") {
  for (const Json& sizes : {SlotRnnConfigOf(20, 2, 3, 4), LlamaConfigOf(6, 4, 2, true)}) {
    Window w({.sizes = sizes, .steps = 9});
    std::vector<Direction> directions = Directions(w.model->params(), 0);
    Direction every{nullptr, {}};
    for (const Direction& d : directions)
      every.entries.insert(every.entries.end(), d.entries.begin(), d.entries.end());
    const auto at = [&](double h) {
      std::vector<double> flat(w.weights.begin(), w.weights.end());
      for (const auto& [place, weight] : every.entries) flat[place] += h * weight;
      return ReferenceLoss(w, flat);
    };
    const double difference = (at(1e-5) - at(-1e-5)) / 2e-5;
    CHECK(Differentiate(w, {&every, 1}).d[0] == doctest::Approx(difference).epsilon(1e-6));
  }
}

}  // namespace
}  // namespace lanewise::model
