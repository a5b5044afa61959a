// llama's forward pass as its definition reads (model/llama/README.md), in plain loops.
#ifndef LANEWISE_TESTS_MODEL_REFERENCE_LLAMA_REFERENCE_H_
#define LANEWISE_TESTS_MODEL_REFERENCE_LLAMA_REFERENCE_H_

#include "tests/model/reference/parts.h"

namespace lanewise::testing {

struct LlamaSizes {
  size_t layers, dim, heads, kv_heads;
  bool tied;
};

template <typename T>
class LlamaReference {
 public:
  LlamaReference(const LlamaSizes& sizes, const Weights<T>& weights) : size_(sizes), p_(weights) {}

  // Sum of the losses of targets (-1: not counted) given tokens, one sequence.
  T Loss(std::span<const int32_t> tokens, std::span<const int32_t> targets,
         const WindowOptions& options) const {
    const Table<T> emb = p_("tok_embeddings");
    Rows<T> x;
    for (const int32_t token : tokens) {
      std::vector<T> row(size_.dim);
      for (size_t i = 0; i < size_.dim; ++i) row[i] = emb(static_cast<size_t>(token), i);
      x.push_back(row);
      DropRow(x.back(), x.size() - 1, 0, options);
    }
    for (size_t l = 0; l < size_.layers; ++l) {
      Attend(l, x, options);
      FeedForward(l, x, options);
    }
    T sum(0);
    for (size_t t = 0; t < x.size(); ++t) {
      if (targets[t] < 0) continue;
      const std::vector<T> logits =
          TimesOutIn(p_(size_.tied ? "tok_embeddings" : "output"), RmsNormRow(x[t], "norm"));
      sum += SmoothedCrossEntropy(logits, targets[t], options.smoothing);
    }
    return sum;
  }

 private:
  std::vector<T> RmsNormRow(const std::vector<T>& x, const std::string& name) const {
    using std::sqrt;
    T squares(0);
    for (const T& value : x) squares += value * value;
    const T root = sqrt(squares / T(static_cast<double>(x.size())) + T(1e-5));
    const Table<T> w = p_(name);
    std::vector<T> y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * w[i] / root;
    return y;
  }

  void Rotate(std::vector<T>& x, size_t position) const {
    const size_t width = size_.dim / size_.heads;
    for (size_t i = 0; i < x.size(); i += 2) {
      const double power = static_cast<double>(i % width) / static_cast<double>(width);
      const double angle = static_cast<double>(position) * std::pow(10000.0, -power);
      const T c(std::cos(angle)), s(std::sin(angle));
      const T even = x[i] * c - x[i + 1] * s;
      x[i + 1] = x[i] * s + x[i + 1] * c;
      x[i] = even;
    }
  }

  void Attend(size_t layer, Rows<T>& x, const WindowOptions& options) const {
    const std::string name = "layers." + std::to_string(layer) + ".";
    const size_t width = size_.dim / size_.heads;
    Rows<T> keys, values;
    for (size_t t = 0; t < x.size(); ++t) {
      const std::vector<T> n = RmsNormRow(x[t], name + "attention_norm");
      std::vector<T> query = TimesOutIn(p_(name + "wq"), n);
      keys.push_back(TimesOutIn(p_(name + "wk"), n));
      values.push_back(TimesOutIn(p_(name + "wv"), n));
      Rotate(query, t);
      Rotate(keys.back(), t);
      std::vector<T> out(size_.dim);
      for (size_t h = 0; h < size_.heads; ++h) {
        const size_t shared = h / (size_.heads / size_.kv_heads) * width;
        std::vector<T> scores(t + 1);
        for (size_t past = 0; past <= t; ++past) {
          for (size_t i = 0; i < width; ++i)
            scores[past] += query[h * width + i] * keys[past][shared + i];
          scores[past] = scores[past] * T(1 / std::sqrt(static_cast<double>(width)));
        }
        const std::vector<T> weight = SoftmaxOf(scores);
        for (size_t past = 0; past <= t; ++past) {
          for (size_t i = 0; i < width; ++i)
            out[h * width + i] += weight[past] * values[past][shared + i];
        }
      }
      std::vector<T> projected = TimesOutIn(p_(name + "wo"), out);
      DropRow(projected, t, static_cast<uint32_t>(1 + 2 * layer), options);
      AddTo(x[t], projected);
    }
  }

  void FeedForward(size_t layer, Rows<T>& x, const WindowOptions& options) const {
    const std::string name = "layers." + std::to_string(layer) + ".";
    for (size_t t = 0; t < x.size(); ++t) {
      const std::vector<T> n = RmsNormRow(x[t], name + "ffn_norm");
      std::vector<T> h = TimesOutIn(p_(name + "w1"), n);
      const std::vector<T> up = TimesOutIn(p_(name + "w3"), n);
      for (size_t i = 0; i < h.size(); ++i) h[i] = Silu(h[i]) * up[i];
      std::vector<T> out = TimesOutIn(p_(name + "w2"), h);
      DropRow(out, t, static_cast<uint32_t>(2 + 2 * layer), options);
      AddTo(x[t], out);
    }
  }

  LlamaSizes size_;
  Weights<T> p_;
};

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_MODEL_REFERENCE_LLAMA_REFERENCE_H_
