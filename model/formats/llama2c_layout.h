// The order and shapes of the tensors in llama2.c's files, for reader and writer.
#ifndef LANEWISE_MODEL_FORMATS_LLAMA2C_LAYOUT_H_
#define LANEWISE_MODEL_FORMATS_LLAMA2C_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "model/formats/tensor.h"

namespace lanewise::model {

inline constexpr uint32_t kLlama2cMagic = 0x616b3432;
inline constexpr size_t kLlama2cHeader = 256;  // bytes, of versions 1 and 2

struct Llama2cSizes {
  uint64_t dim = 0;
  uint64_t hidden = 0;
  uint64_t layers = 0;
  uint64_t heads = 0;
  uint64_t kv_heads = 0;
  uint64_t vocab = 0;
  uint64_t seq = 0;
  bool tied = true;

  uint64_t head_dim() const { return dim / heads; }
  uint64_t kv_dim() const { return head_dim() * kv_heads; }
};

// One tensor, or one of each layer, one layer after the other.
struct Llama2cGroup {
  std::string name;
  Shape shape;
  bool per_layer = false;
  bool is_norm = false;

  std::string TensorName(uint64_t layer) const {
    return per_layer ? "layers." + std::to_string(layer) + "." + name : name;
  }
};

inline std::vector<Llama2cGroup> Llama2cVersion0(const Llama2cSizes& s) {
  std::vector<Llama2cGroup> groups = {
      {"tok_embeddings", {s.vocab, s.dim}}, {"attention_norm", {s.dim}, true, true},
      {"wq", {s.dim, s.dim}, true},         {"wk", {s.kv_dim(), s.dim}, true},
      {"wv", {s.kv_dim(), s.dim}, true},    {"wo", {s.dim, s.dim}, true},
      {"ffn_norm", {s.dim}, true, true},    {"w1", {s.hidden, s.dim}, true},
      {"w2", {s.dim, s.hidden}, true},      {"w3", {s.hidden, s.dim}, true},
      {"norm", {s.dim}, false, true},
  };
  if (!s.tied) groups.push_back({"output", {s.vocab, s.dim}});
  return groups;
}

inline std::vector<Llama2cGroup> Llama2cVersion1(const Llama2cSizes& s) {
  std::vector<Llama2cGroup> groups = {
      {"attention_norm", {s.dim}, true, true},
      {"ffn_norm", {s.dim}, true, true},
      {"norm", {s.dim}, false, true},
      {"tok_embeddings", {s.vocab, s.dim}},
      {"wq", {s.dim, s.dim}, true},
      {"wk", {s.kv_dim(), s.dim}, true},
      {"wv", {s.kv_dim(), s.dim}, true},
      {"wo", {s.dim, s.dim}, true},
      {"w1", {s.hidden, s.dim}, true},
      {"w2", {s.dim, s.hidden}, true},
      {"w3", {s.hidden, s.dim}, true},
  };
  if (!s.tied) groups.push_back({"output", {s.vocab, s.dim}});
  return groups;
}

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_FORMATS_LLAMA2C_LAYOUT_H_
