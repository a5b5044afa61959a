// llama: a transformer in the style of Llama 2. The definition is in model/llama/README.md.
#ifndef LANEWISE_MODEL_LLAMA_LLAMA_H_
#define LANEWISE_MODEL_LLAMA_LLAMA_H_

#include <string>
#include <vector>

#include "model/model.h"

namespace lanewise::model {

struct LlamaConfig {
  size_t vocab_size = 0;
  size_t layers = 0;
  size_t dim = 0;
  size_t heads = 0;
  size_t kv_heads = 0;
  size_t hidden_dim = 0;
  size_t ctx = 0;
  bool tied = true;  // the head is the embedding
  double norm_eps = 1e-5;
  double rope_theta = 10000;

  size_t HeadDim() const { return dim / heads; }
  // InputError names `where`, the field and what it may be.
  static LlamaConfig FromJson(const Json& json, const std::string& where);
  Json ToJson() const;
};

class Llama final : public Model {
 public:
  explicit Llama(const LlamaConfig& config);

  std::string_view kind() const override { return "llama"; }
  Json Config() const override { return config_.ToJson(); }
  size_t vocab_size() const override { return config_.vocab_size; }
  size_t context() const override { return config_.ctx; }
  bool recurrent() const override { return false; }
  std::vector<StateSpec> state(const GraphOptions& options) const override;
  ModelGraph Build(const GraphOptions& options) const override;
  void Initialize(std::string_view scheme, uint64_t seed, std::span<float> weights) const override;
  double TrainFlopsPerToken(size_t steps) const override;
  size_t DecodeWeights() const override;

 private:
  struct Layer {
    ParamBlock attention_norm;
    ParamBlock wqkv;  // [(heads + 2 kv_heads) * hd, E]: wq, wk, wv
    ParamBlock wo;
    ParamBlock ffn_norm;
    ParamBlock w13;  // [2F, E]: w1 (gate), w3 (up)
    ParamBlock w2;
  };
  struct Builder;

  LlamaConfig config_;
  ParamBlock emb_, norm_, output_;  // output_: only if untied
  std::vector<Layer> layers_;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_LLAMA_LLAMA_H_
