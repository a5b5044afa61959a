#include "model/slot_rnn/slot_rnn.h"

#include <cmath>
#include <utility>

#include "model/error.h"
#include "model/graph_ports.h"
#include "runtime/check.h"
#include "runtime/ops/dropout.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/layer_norm.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/swiglu.h"
#include "runtime/ops/token_shift.h"
#include "runtime/ops/wkv.h"

namespace lanewise::model {

namespace {

using runtime::Graph;
using runtime::StrCat;
using runtime::TensorId;
using runtime::WeightLayout;

constexpr float kEps = 1e-6F;
constexpr size_t kStatesPerLayer = 3;  // token shift rows, WKV state, channel shift row

// exp(-slope[head(i)]), slope[h] = 2^(-8 (h + 1) / H), for each channel.
std::vector<float> DecayScale(const SlotRnnConfig& config) {
  std::vector<float> scale(config.dim);
  for (size_t i = 0; i < config.dim; ++i) {
    const size_t head = i / (config.dim / config.heads);
    const double slope =
        std::exp2(-8.0 * static_cast<double>(head + 1) / static_cast<double>(config.heads));
    scale[i] = static_cast<float>(std::exp(-slope));
  }
  return scale;
}

}  // namespace

SlotRnnConfig SlotRnnConfig::FromJson(const Json& json, const std::string& where) {
  SlotRnnConfig c;
  const auto size = [&](const char* field, int64_t highest) {
    return static_cast<size_t>(GetInteger(json, field, 1, highest, where));
  };
  c.vocab_size = size("vocab_size", 1 << 24);
  c.layers = size("layers", 1024);
  c.dim = size("dim", 1 << 16);
  c.heads = size("heads", 1 << 16);
  c.ctx = size("ctx", 1 << 24);
  c.slots = size("slots", 32);
  c.decay_rank = size("decay_rank", 1 << 12);
  c.ffn_mult = GetNumber(json, "ffn_mult", where);
  if (!(c.ffn_mult > 0 && c.ffn_mult <= 64)) {
    throw InputError(
        StrCat(where, ": \"ffn_mult\" must be above 0 and at most 64, is ", c.ffn_mult));
  }
  // int(E * multiplier) differs between float and double: the stored width decides.
  c.ffn_dim = json.contains("ffn_dim")
                  ? size("ffn_dim", 1 << 20)
                  : static_cast<size_t>(static_cast<float>(c.dim) * static_cast<float>(c.ffn_mult));
  if (c.ffn_dim == 0) throw InputError(StrCat(where, ": \"ffn_mult\" makes no feed-forward width"));
  if (c.dim % c.heads != 0) {
    throw InputError(
        StrCat(where, ": \"dim\" ", c.dim, " is not divisible by \"heads\" ", c.heads));
  }
  return c;
}

Json SlotRnnConfig::ToJson() const {
  return {{"model", "slot_rnn"}, {"vocab_size", vocab_size}, {"layers", layers},
          {"dim", dim},          {"heads", heads},           {"ctx", ctx},
          {"slots", slots},      {"decay_rank", decay_rank}, {"ffn_mult", ffn_mult},
          {"ffn_dim", ffn_dim}};
}

SlotRnn::SlotRnn(const SlotRnnConfig& config) : config_(config) {
  emb_ = params_.AddMatrix("emb", config.vocab_size, config.dim);
  ln0_weight_ = params_.AddVector("ln0.weight", config.dim);
  ln0_bias_ = params_.AddVector("ln0.bias", config.dim);
  for (size_t l = 0; l < config.layers; ++l) AddLayer(l);
  ln_out_weight_ = params_.AddVector("ln_out.weight", config.dim);
  ln_out_bias_ = params_.AddVector("ln_out.bias", config.dim);
  head_ = params_.AddMatrix("head", config.dim, config.vocab_size);
}

void SlotRnn::AddLayer(size_t index) {
  const size_t e = config_.dim;
  const std::string p = StrCat("layers.", index, ".");
  Layer l;
  l.ln1_weight = params_.AddVector(p + "ln1.weight", e);
  l.ln1_bias = params_.AddVector(p + "ln1.bias", e);
  l.ln2_weight = params_.AddVector(p + "ln2.weight", e);
  l.ln2_bias = params_.AddVector(p + "ln2.bias", e);
  l.time_shift_w1 = params_.AddVector(p + "time_shift_w1", e);
  l.time_shift_w2 = params_.AddVector(p + "time_shift_w2", e);
  l.time_shift_w4 = params_.AddVector(p + "time_shift_w4", e);
  l.time_mix_r = params_.AddVector(p + "time_mix_r", e);
  l.time_mix_k = params_.AddVector(p + "time_mix_k", e);
  l.time_mix_v = params_.AddVector(p + "time_mix_v", e);
  l.gates = params_.AddColumns(p + "gates", e,
                               {{p + "mem_gate_write", config_.slots},
                                {p + "mem_gate_read", config_.slots},
                                {p + "decay_lora_a", config_.decay_rank}});
  l.decay_lora_b = params_.AddMatrix(p + "decay_lora_b", config_.decay_rank, e);
  l.decay_base = params_.AddVector(p + "decay_base", e);
  l.time_first = params_.AddVector(p + "time_first", e);
  l.wr = params_.AddMatrix(p + "Wr", e, e);
  l.wk = params_.AddMatrix(p + "Wk", e, e);
  l.wv = params_.AddMatrix(p + "Wv", e, e);
  l.wo = params_.AddMatrix(p + "Wo", e, e);
  l.channel_mix = params_.AddVector(p + "channel_mix", e);
  l.ffn_in = params_.AddColumns(
      p + "ffn_in", e, {{p + "ffn_gate", config_.ffn_dim}, {p + "ffn_up", config_.ffn_dim}});
  l.ffn_down = params_.AddMatrix(p + "ffn_down", config_.ffn_dim, e);
  layers_.push_back(l);
}

std::vector<StateSpec> SlotRnn::state(const GraphOptions&) const {
  std::vector<StateSpec> specs;
  for (size_t l = 0; l < config_.layers; ++l) {
    const std::string p = StrCat("layers.", l, ".");
    specs.push_back({p + "token_shift", 4, config_.dim});
    specs.push_back({p + "wkv", 2 * config_.slots, config_.dim});
    specs.push_back({p + "channel_shift", 1, config_.dim});
  }
  return specs;
}

// The forward pass. One member function per part of the definition.
struct SlotRnn::Builder {
  const SlotRnn& model;
  const GraphOptions& options;
  ModelGraph m = {};
  TensorId decay_scale = {};

  TensorId P(const ParamBlock& block) { return Use(m.graph, block); }
  TensorId Matrix(const ParamBlock& block) { return Use(m.graph, block, options.half_weights); }
  TensorId Product(TensorId x, const ParamBlock& w, TensorId residual = {}) {
    return Matmul(m.graph, x, Matrix(w), WeightLayout::kInOut, residual);
  }
  TensorId State(bool in, size_t index) {
    const std::vector<TensorId>& list = in ? m.state_in : m.state_out;
    return list.empty() ? TensorId{} : list[index];
  }

  void Inputs() {
    AddInputs(options, &m);
    Graph& g = m.graph;
    if (options.state) {
      for (const StateSpec& spec : model.state(options)) {
        m.state_in.push_back(g.External(spec.name, options.sequences * spec.rows, spec.cols));
        m.state_out.push_back(g.External(spec.name, options.sequences * spec.rows, spec.cols));
      }
    }
    decay_scale = g.Constant("decay_scale", 1, model.config_.dim, DecayScale(model.config_));
  }

  TensorId Residual(TensorId h, const ParamBlock& w, TensorId x, size_t layer, uint32_t place) {
    if (options.dropout <= 0) return Product(h, w, x);
    return Dropout(m.graph, Product(h, w), options.dropout, m.random_key,
                   static_cast<uint32_t>(1 + 2 * layer) + place, x);
  }

  TensorId TimeMix(const Layer& l, size_t index, TensorId x) {
    Graph& g = m.graph;
    const TensorId n = LayerNorm(g, x, P(l.ln1_weight), P(l.ln1_bias), kEps);
    const auto [xr, xk, xv] = TokenShift(g, {.n = n,
                                             .w1 = P(l.time_shift_w1),
                                             .w2 = P(l.time_shift_w2),
                                             .w4 = P(l.time_shift_w4),
                                             .mix_r = P(l.time_mix_r),
                                             .mix_k = P(l.time_mix_k),
                                             .mix_v = P(l.time_mix_v),
                                             .lengths = m.lengths,
                                             .carried_in = State(true, index * kStatesPerLayer),
                                             .carried_out = State(false, index * kStatesPerLayer),
                                             .sequences = options.sequences});
    const size_t s = model.config_.slots;
    const TensorId low = Product(n, l.gates);
    const TensorId gates = Softmax(g, g.View(low, 0, 2 * s), 2);
    const TensorId d = Product(g.View(low, 2 * s, model.config_.decay_rank), l.decay_lora_b);
    const TensorId ry = Wkv(g, {.r = Product(xr, l.wr),
                                .k = Product(xk, l.wk),
                                .v = Product(xv, l.wv),
                                .d = d,
                                .gates = gates,
                                .decay_base = P(l.decay_base),
                                .time_first = P(l.time_first),
                                .decay_scale = decay_scale,
                                .lengths = m.lengths,
                                .state_in = State(true, index * kStatesPerLayer + 1),
                                .state_out = State(false, index * kStatesPerLayer + 1),
                                .sequences = options.sequences});
    return Residual(ry, l.wo, x, index, 0);
  }

  TensorId ChannelMix(const Layer& l, size_t index, TensorId x) {
    Graph& g = m.graph;
    const TensorId n = LayerNorm(g, x, P(l.ln2_weight), P(l.ln2_bias), kEps);
    const TensorId xm = ChannelShift(g, {.n = n,
                                         .mix = P(l.channel_mix),
                                         .lengths = m.lengths,
                                         .carried_in = State(true, index * kStatesPerLayer + 2),
                                         .carried_out = State(false, index * kStatesPerLayer + 2),
                                         .sequences = options.sequences});
    return Residual(Swiglu(g, Product(xm, l.ffn_in)), l.ffn_down, x, index, 1);
  }

  ModelGraph Build() {
    Inputs();
    // Training reads the exact rows, which it has anyway.
    TensorId x =
        Embedding(m.graph, options.gradients ? P(model.emb_) : Matrix(model.emb_), m.tokens);
    x = LayerNorm(m.graph, x, P(model.ln0_weight_), P(model.ln0_bias_), kEps);
    if (options.dropout > 0) x = Dropout(m.graph, x, options.dropout, m.random_key, 0);
    for (size_t l = 0; l < model.layers_.size(); ++l) {
      m.graph.SetLayer(static_cast<int>(l));
      x = TimeMix(model.layers_[l], l, x);
      x = ChannelMix(model.layers_[l], l, x);
    }
    AddOutputs(options, x,
               {.weights = Matrix(model.head_),
                .layout = WeightLayout::kInOut,
                .norm =
                    [&](TensorId rows) {
                      return LayerNorm(m.graph, rows, P(model.ln_out_weight_),
                                       P(model.ln_out_bias_), kEps);
                    }},
               &m);
    return std::move(m);
  }
};

ModelGraph SlotRnn::Build(const GraphOptions& options) const {
  return Builder{*this, options}.Build();
}

size_t SlotRnn::DecodeWeights() const {
  size_t weights = head_.Count();
  for (const Layer& l : layers_) {
    for (const ParamBlock* b :
         {&l.gates, &l.decay_lora_b, &l.wr, &l.wk, &l.wv, &l.wo, &l.ffn_in, &l.ffn_down}) {
      weights += b->Count();
    }
  }
  return weights;
}

double SlotRnn::TrainFlopsPerToken(size_t) const {
  return 6 * static_cast<double>(DecodeWeights());
}

}  // namespace lanewise::model
