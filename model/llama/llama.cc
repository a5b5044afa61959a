#include "model/llama/llama.h"

#include <cmath>
#include <limits>
#include <utility>

#include "model/error.h"
#include "model/graph_ports.h"
#include "model/initializer.h"
#include "runtime/check.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/cached_attention.h"
#include "runtime/ops/dropout.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/rms_norm.h"
#include "runtime/ops/rope.h"
#include "runtime/ops/swiglu.h"

namespace lanewise::model {

using runtime::AttentionShape;
using runtime::Graph;
using runtime::StrCat;
using runtime::TensorId;
using runtime::WeightLayout;

LlamaConfig LlamaConfig::FromJson(const Json& json, const std::string& where) {
  LlamaConfig c;
  const auto size = [&](const char* field, int64_t highest) {
    return static_cast<size_t>(GetInteger(json, field, 1, highest, where));
  };
  c.vocab_size = size("vocab_size", 1 << 24);
  c.layers = size("layers", 1024);
  c.dim = size("dim", 1 << 16);
  c.heads = size("heads", 1 << 16);
  c.kv_heads = size("kv_heads", 1 << 16);
  c.hidden_dim = size("hidden_dim", 1 << 20);
  c.ctx = size("ctx", 1 << 24);
  c.tied = GetBool(json, "tied", where);
  c.norm_eps = GetNumber(json, "norm_eps", where);
  c.rope_theta = GetNumber(json, "rope_theta", where);
  if (c.dim % c.heads != 0) {
    throw InputError(
        StrCat(where, ": \"dim\" ", c.dim, " is not divisible by \"heads\" ", c.heads));
  }
  if (c.HeadDim() % 2 != 0) {
    throw InputError(StrCat(where, ": \"dim\" / \"heads\" is ", c.HeadDim(),
                            ", but RoPE needs an even head width"));
  }
  if (c.heads % c.kv_heads != 0) {
    throw InputError(
        StrCat(where, ": \"heads\" ", c.heads, " is not divisible by \"kv_heads\" ", c.kv_heads));
  }
  // The kernels take it as a float, in which smaller numbers are 0.
  using Float = std::numeric_limits<float>;
  if (!(c.norm_eps >= Float::min() && c.norm_eps <= Float::max())) {
    throw InputError(StrCat(where, ": \"norm_eps\" must be a positive float32, is ", c.norm_eps));
  }
  if (!(c.rope_theta > 0)) throw InputError(where + ": \"rope_theta\" must be positive");
  return c;
}

Json LlamaConfig::ToJson() const {
  return {{"model", "llama"}, {"vocab_size", vocab_size}, {"layers", layers},         {"dim", dim},
          {"heads", heads},   {"kv_heads", kv_heads},     {"hidden_dim", hidden_dim}, {"ctx", ctx},
          {"tied", tied},     {"norm_eps", norm_eps},     {"rope_theta", rope_theta}};
}

Llama::Llama(const LlamaConfig& config) : config_(config) {
  const size_t e = config.dim;
  const size_t kv = config.kv_heads * config.HeadDim();
  emb_ = params_.AddMatrix("tok_embeddings", config.vocab_size, e);
  for (size_t i = 0; i < config.layers; ++i) {
    const std::string p = StrCat("layers.", i, ".");
    Layer l;
    l.attention_norm = params_.AddVector(p + "attention_norm", e);
    l.wqkv = params_.AddRows(p + "wqkv", e, {{p + "wq", e}, {p + "wk", kv}, {p + "wv", kv}});
    l.wo = params_.AddMatrix(p + "wo", e, e);
    l.ffn_norm = params_.AddVector(p + "ffn_norm", e);
    l.w13 = params_.AddRows(p + "w13", e,
                            {{p + "w1", config.hidden_dim}, {p + "w3", config.hidden_dim}});
    l.w2 = params_.AddMatrix(p + "w2", e, config.hidden_dim);
    layers_.push_back(l);
  }
  norm_ = params_.AddVector("norm", e);
  if (!config.tied) output_ = params_.AddMatrix("output", config.vocab_size, e);
}

std::vector<StateSpec> Llama::state(const GraphOptions& options) const {
  std::vector<StateSpec> specs;
  const size_t width = config_.kv_heads * config_.HeadDim();
  const auto dtype = options.half_weights ? runtime::DType::kBFloat16 : runtime::DType::kFloat32;
  for (size_t l = 0; l < config_.layers; ++l) {
    for (const char* name : {".keys", ".values"}) {
      specs.push_back({.name = StrCat("layers.", l, name),
                       .rows = options.cache_capacity,
                       .cols = width,
                       .in_place = true,
                       .dtype = dtype});
    }
  }
  return specs;
}

struct Llama::Builder {
  const Llama& model;
  const GraphOptions& options;
  ModelGraph m = {};
  TensorId rope_table = {};

  const LlamaConfig& config() const { return model.config_; }
  TensorId P(const ParamBlock& block) { return Use(m.graph, block); }
  TensorId Matrix(const ParamBlock& block) { return Use(m.graph, block, options.half_weights); }
  TensorId Norm(TensorId x, const ParamBlock& w) {
    return RmsNorm(m.graph, x, P(w), static_cast<float>(config().norm_eps));
  }
  TensorId Product(TensorId x, const ParamBlock& w, TensorId residual = {}) {
    return Matmul(m.graph, x, Matrix(w), WeightLayout::kOutIn, residual);
  }

  void Inputs() {
    AddInputs(options, &m);
    Graph& g = m.graph;
    const size_t sequences = options.sequences;
    if (options.state) {
      m.starts = g.External("starts", sequences, 1, runtime::DType::kInt32);
      for (const StateSpec& spec : model.state(options)) {
        m.state_in.push_back(g.External(spec.name, sequences * spec.rows, spec.cols, spec.dtype));
        m.state_out.push_back(m.state_in.back());
      }
    }
    rope_table =
        RopeTable(g, sequences, options.steps, config().HeadDim(), config().rope_theta, m.starts);
  }

  TensorId Residual(TensorId h, const ParamBlock& w, TensorId x, size_t layer, uint32_t place) {
    if (options.dropout <= 0) return Product(h, w, x);
    return Dropout(m.graph, Product(h, w), options.dropout, m.random_key,
                   static_cast<uint32_t>(1 + 2 * layer) + place, x);
  }

  TensorId Attend(const Layer& l, size_t index, TensorId x) {
    Graph& g = m.graph;
    const AttentionShape shape{options.sequences, config().heads, config().kv_heads};
    const TensorId qkv = Rope(g, Product(Norm(x, l.attention_norm), l.wqkv), rope_table,
                              config().heads + config().kv_heads);
    const TensorId out = options.state ? CachedAttention(g, {.qkv = qkv,
                                                             .shape = shape,
                                                             .starts = m.starts,
                                                             .lengths = m.lengths,
                                                             .keys = m.state_in[2 * index],
                                                             .values = m.state_in[2 * index + 1],
                                                             .slide = options.slide_cache})
                                       : Attention(g, qkv, shape);
    return Residual(out, l.wo, x, index, 0);
  }

  TensorId FeedForward(const Layer& l, size_t index, TensorId x) {
    const TensorId h = Swiglu(m.graph, Product(Norm(x, l.ffn_norm), l.w13));
    return Residual(h, l.w2, x, index, 1);
  }

  ModelGraph Build() {
    Inputs();
    // Training reads the exact rows, which it has anyway.
    TensorId x =
        Embedding(m.graph, options.gradients ? P(model.emb_) : Matrix(model.emb_), m.tokens);
    if (options.dropout > 0) x = Dropout(m.graph, x, options.dropout, m.random_key, 0);
    for (size_t l = 0; l < model.layers_.size(); ++l) {
      m.graph.SetLayer(static_cast<int>(l));
      x = Attend(model.layers_[l], l, x);
      x = FeedForward(model.layers_[l], l, x);
    }
    AddOutputs(options, x,
               {.weights = Matrix(config().tied ? model.emb_ : model.output_),
                .layout = WeightLayout::kOutIn,
                .norm = [&](TensorId rows) { return Norm(rows, model.norm_); }},
               &m);
    return std::move(m);
  }
};

ModelGraph Llama::Build(const GraphOptions& options) const {
  return Builder{*this, options}.Build();
}

// N(0, 0.02), the two projections into the residual stream divided by sqrt(2 * layers); norms 1.
void Llama::Initialize(std::string_view scheme, uint64_t seed, std::span<float> weights) const {
  if (scheme != "default" && scheme != "seed") {
    throw UsageError("--init: \"" + std::string(scheme) + "\" is neither default nor seed");
  }
  const Initializer fill(params_, seed, weights);
  for (const Param& p : params_.params()) {
    if (p.is_vector) {
      fill.PerColumn(p, [](size_t) { return 1.0; });
      continue;
    }
    const bool into_residual = p.name.ends_with(".wo") || p.name.ends_with(".w2");
    fill.Normal(p,
                into_residual ? 0.02 / std::sqrt(2.0 * static_cast<double>(config_.layers)) : 0.02);
  }
}

size_t Llama::DecodeWeights() const {
  size_t weights = config_.dim * config_.vocab_size;
  for (const Layer& l : layers_) {
    for (const ParamBlock* b : {&l.wqkv, &l.wo, &l.w13, &l.w2}) weights += b->Count();
  }
  return weights;
}

double Llama::TrainFlopsPerToken(size_t steps) const {
  // Attention is causal: half of 12 * T * E for each layer.
  return 6 * static_cast<double>(DecodeWeights()) +
         6.0 * static_cast<double>(config_.layers * steps * config_.dim);
}

}  // namespace lanewise::model
