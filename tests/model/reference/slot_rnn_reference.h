// slot_rnn's forward pass as its definition reads (model/slot_rnn/README.md), in plain loops.
#ifndef LANEWISE_TESTS_MODEL_REFERENCE_SLOT_RNN_REFERENCE_H_
#define LANEWISE_TESTS_MODEL_REFERENCE_SLOT_RNN_REFERENCE_H_

#include "tests/model/reference/parts.h"

namespace lanewise::testing {

struct SlotRnnSizes {
  size_t layers, dim, heads, slots;
};

template <typename T>
struct SlotRnnLayerState {
  Rows<T> normed;          // the last four rows of n, oldest first
  Rows<T> num, den;        // [S, E]
  std::vector<T> channel;  // the last row of n2
};

template <typename T>
class SlotRnnReference {
 public:
  SlotRnnReference(const SlotRnnSizes& sizes, const Weights<T>& weights)
      : size_(sizes), p_(weights) {}

  // Sum of the losses of targets (-1: not counted) given tokens, one sequence. `state` goes on and
  // comes back.
  T Loss(std::span<const int32_t> tokens, std::span<const int32_t> targets,
         const WindowOptions& options, std::vector<SlotRnnLayerState<T>>& state) const {
    const Table<T> emb = p_("emb");
    Rows<T> x;
    for (const int32_t token : tokens) {
      std::vector<T> row(size_.dim);
      for (size_t i = 0; i < size_.dim; ++i) row[i] = emb(static_cast<size_t>(token), i);
      x.push_back(LayerNormRow(row, "ln0"));
      DropRow(x.back(), x.size() - 1, 0, options);
    }
    for (size_t l = 0; l < size_.layers; ++l) {
      TimeMix(l, x, state[l], options);
      ChannelMix(l, x, state[l], options);
    }
    T sum(0);
    for (size_t t = 0; t < x.size(); ++t) {
      if (targets[t] < 0) continue;
      const std::vector<T> logits = TimesInOut(LayerNormRow(x[t], "ln_out"), p_("head"));
      sum += SmoothedCrossEntropy(logits, targets[t], options.smoothing);
    }
    return sum;
  }

 private:
  std::vector<T> LayerNormRow(const std::vector<T>& x, const std::string& name) const {
    using std::sqrt;
    const T n(static_cast<double>(x.size()));
    T mean(0), variance(0);
    for (const T& value : x) mean += value;
    mean = mean / n;
    for (const T& value : x) variance += (value - mean) * (value - mean);
    const T deviation = sqrt(variance / n + T(1e-6));
    const Table<T> weight = p_(name + ".weight"), bias = p_(name + ".bias");
    std::vector<T> y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = (x[i] - mean) / deviation * weight[i] + bias[i];
    return y;
  }

  void TimeMix(size_t layer, Rows<T>& x, SlotRnnLayerState<T>& state,
               const WindowOptions& options) const {
    const std::string name = "layers." + std::to_string(layer) + ".";
    Rows<T> n = state.normed;  // row 4 + t is this window's row t
    for (const std::vector<T>& row : x) n.push_back(LayerNormRow(row, name + "ln1"));
    const Table<T> w1 = p_(name + "time_shift_w1"), w2 = p_(name + "time_shift_w2"),
                   w4 = p_(name + "time_shift_w4"), mix_r = p_(name + "time_mix_r"),
                   mix_k = p_(name + "time_mix_k"), mix_v = p_(name + "time_mix_v");
    for (size_t t = 0; t < x.size(); ++t) {
      std::vector<T> xr, xk, xv;
      for (size_t i = 0; i < size_.dim; ++i) {
        const T s1 = Sigmoid(w1[i]), s2 = Sigmoid(w2[i]), s4 = Sigmoid(w4[i]);
        const T shifted =
            (s1 * n[t + 3][i] + s2 * n[t + 2][i] + s4 * n[t][i]) / (s1 + s2 + s4 + T(1e-6));
        const auto mix = [&](const T& raw) {
          const T m = Sigmoid(raw);
          return n[t + 4][i] * m + shifted * (T(1) - m);
        };
        xr.push_back(mix(mix_r[i]));
        xk.push_back(mix(mix_k[i]));
        xv.push_back(mix(mix_v[i]));
      }
      std::vector<T> out = TimesInOut(Recur(name, n[t + 4], xr, xk, xv, state), p_(name + "Wo"));
      DropRow(out, t, static_cast<uint32_t>(1 + 2 * layer), options);
      AddTo(x[t], out);
    }
    state.normed.assign(n.end() - 4, n.end());
  }

  // One step of the recurrence: r y.
  std::vector<T> Recur(const std::string& name, const std::vector<T>& n, const std::vector<T>& xr,
                       const std::vector<T>& xk, const std::vector<T>& xv,
                       SlotRnnLayerState<T>& state) const {
    using std::exp;
    const std::vector<T> r = TimesInOut(xr, p_(name + "Wr"));
    const std::vector<T> raw_k = TimesInOut(xk, p_(name + "Wk"));
    const std::vector<T> v = TimesInOut(xv, p_(name + "Wv"));
    const std::vector<T> low =
        TimesInOut(TimesInOut(n, p_(name + "decay_lora_a")), p_(name + "decay_lora_b"));
    const std::vector<T> write = SoftmaxOf(TimesInOut(n, p_(name + "mem_gate_write")));
    const std::vector<T> read = SoftmaxOf(TimesInOut(n, p_(name + "mem_gate_read")));
    const Table<T> decay_base = p_(name + "decay_base"), time_first = p_(name + "time_first");
    std::vector<T> y(size_.dim);
    for (size_t i = 0; i < size_.dim; ++i) {
      const T k = exp(ClampTen(raw_k[i]));
      const auto head = static_cast<double>(i / (size_.dim / size_.heads));
      const double slope = std::pow(2.0, -8 * (head + 1) / static_cast<double>(size_.heads));
      const T a = Sigmoid(decay_base[i] + low[i]) * T(std::exp(-slope));
      const T u = exp(ClampTen(time_first[i]));
      T num = u * k * v[i];
      T den = u * k + T(1e-6);
      for (size_t s = 0; s < size_.slots; ++s) {
        num += read[s] * state.num[s][i];
        den += read[s] * state.den[s][i];
        state.num[s][i] = a * state.num[s][i] + write[s] * k * v[i];
        state.den[s][i] = a * state.den[s][i] + write[s] * k;
      }
      y[i] = Sigmoid(r[i]) * num / den;
    }
    return y;
  }

  void ChannelMix(size_t layer, Rows<T>& x, SlotRnnLayerState<T>& state,
                  const WindowOptions& options) const {
    const std::string name = "layers." + std::to_string(layer) + ".";
    const Table<T> mix = p_(name + "channel_mix");
    for (size_t t = 0; t < x.size(); ++t) {
      const std::vector<T> n = LayerNormRow(x[t], name + "ln2");
      std::vector<T> mixed(size_.dim);
      for (size_t i = 0; i < size_.dim; ++i) {
        const T m = Sigmoid(mix[i]);
        mixed[i] = n[i] * m + state.channel[i] * (T(1) - m);
      }
      state.channel = n;
      std::vector<T> h = TimesInOut(mixed, p_(name + "ffn_gate"));
      const std::vector<T> up = TimesInOut(mixed, p_(name + "ffn_up"));
      for (size_t i = 0; i < h.size(); ++i) h[i] = Silu(h[i]) * up[i];
      std::vector<T> out = TimesInOut(h, p_(name + "ffn_down"));
      DropRow(out, t, static_cast<uint32_t>(2 + 2 * layer), options);
      AddTo(x[t], out);
    }
  }

  SlotRnnSizes size_;
  Weights<T> p_;
};

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_MODEL_REFERENCE_SLOT_RNN_REFERENCE_H_
