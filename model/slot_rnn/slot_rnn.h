// slot_rnn: a linear RNN with slot memory. The definition is in model/slot_rnn/README.md.
#ifndef LANEWISE_MODEL_SLOT_RNN_SLOT_RNN_H_
#define LANEWISE_MODEL_SLOT_RNN_SLOT_RNN_H_

#include <string>
#include <vector>

#include "model/model.h"

namespace lanewise::model {

struct SlotRnnConfig {
  size_t vocab_size = 0;
  size_t layers = 0;
  size_t dim = 0;         // E
  size_t heads = 0;       // only sets the decay slopes: head(i) = i / (E / heads)
  size_t ctx = 0;         // training window
  size_t slots = 0;       // S
  size_t decay_rank = 0;  // R
  size_t ffn_dim = 0;     // F
  double ffn_mult = 0;    // F = int(E * ffn_mult), kept for files that store it

  // InputError names `where`, the field and what it may be.
  static SlotRnnConfig FromJson(const Json& json, const std::string& where);
  Json ToJson() const;
};

class SlotRnn final : public Model {
 public:
  explicit SlotRnn(const SlotRnnConfig& config);

  std::string_view kind() const override { return "slot_rnn"; }
  Json Config() const override { return config_.ToJson(); }
  size_t vocab_size() const override { return config_.vocab_size; }
  size_t context() const override { return config_.ctx; }
  bool recurrent() const override { return true; }
  std::vector<StateSpec> state(const GraphOptions& options) const override;
  ModelGraph Build(const GraphOptions& options) const override;
  void Initialize(std::string_view scheme, uint64_t seed, std::span<float> weights) const override;
  double TrainFlopsPerToken(size_t steps) const override;
  size_t DecodeWeights() const override;

 private:
  struct Layer {
    ParamBlock ln1_weight, ln1_bias, ln2_weight, ln2_bias;
    ParamBlock time_shift_w1, time_shift_w2, time_shift_w4;
    ParamBlock time_mix_r, time_mix_k, time_mix_v;
    ParamBlock gates;  // [E, 2S + R]: mem_gate_write, mem_gate_read, decay_lora_a
    ParamBlock decay_lora_b, decay_base, time_first;
    ParamBlock wr, wk, wv, wo;
    ParamBlock channel_mix;
    ParamBlock ffn_in;  // [E, 2F]: ffn_gate, ffn_up
    ParamBlock ffn_down;
  };
  struct Builder;

  void AddLayer(size_t index);

  SlotRnnConfig config_;
  ParamBlock emb_, ln0_weight_, ln0_bias_, ln_out_weight_, ln_out_bias_, head_;
  std::vector<Layer> layers_;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_SLOT_RNN_SLOT_RNN_H_
