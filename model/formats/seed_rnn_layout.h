// The order and shapes of the tensors in the seed program's files, for reader and writer.
#ifndef LANEWISE_MODEL_FORMATS_SEED_RNN_LAYOUT_H_
#define LANEWISE_MODEL_FORMATS_SEED_RNN_LAYOUT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/formats/tensor.h"

namespace lanewise::model {

inline constexpr std::string_view kSeedMagic1{"lrnnC01\0", 8};
inline constexpr std::string_view kSeedMagic2{"lrnnC02\0", 8};
inline constexpr int32_t kSeedChar = 0;
inline constexpr int32_t kSeedWord = 1;

struct SeedSizes {
  uint64_t vocab = 0;
  uint64_t layers = 0;
  uint64_t dim = 0;
  uint64_t heads = 0;
  uint64_t ctx = 0;
  uint64_t rank = 0;
  uint64_t slots = 0;
  uint64_t ffn = 0;
};

struct SeedTensor {
  std::string name;
  Shape shape;  // of one dimension n: stored as n rows, 1 column
};

inline std::vector<SeedTensor> SeedFirstTensors(const SeedSizes& s) {
  return {{"emb", {s.vocab, s.dim}}, {"ln0.weight", {s.dim}}, {"ln0.bias", {s.dim}}};
}

inline std::vector<SeedTensor> SeedLayerTensors(const SeedSizes& s, uint64_t layer) {
  const std::string p = "layers." + std::to_string(layer) + ".";
  const uint64_t e = s.dim;
  std::vector<SeedTensor> list;
  for (const char* name :
       {"ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias", "time_shift_w1", "time_shift_w2",
        "time_shift_w4", "time_mix_r", "time_mix_k", "time_mix_v"}) {
    list.push_back({p + name, {e}});
  }
  list.push_back({p + "decay_lora_a", {e, s.rank}});
  list.push_back({p + "decay_lora_b", {s.rank, e}});
  list.push_back({p + "decay_base", {e}});
  list.push_back({p + "time_first", {e}});
  for (const char* name : {"Wr", "Wk", "Wv", "Wo"}) list.push_back({p + name, {e, e}});
  list.push_back({p + "channel_mix", {e}});
  list.push_back({p + "ffn_gate", {e, s.ffn}});
  list.push_back({p + "ffn_up", {e, s.ffn}});
  list.push_back({p + "ffn_down", {s.ffn, e}});
  list.push_back({p + "mem_gate_write", {e, s.slots}});
  list.push_back({p + "mem_gate_read", {e, s.slots}});
  return list;
}

inline std::vector<SeedTensor> SeedLastTensors(const SeedSizes& s) {
  return {{"ln_out.weight", {s.dim}}, {"ln_out.bias", {s.dim}}, {"head", {s.dim, s.vocab}}};
}

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_FORMATS_SEED_RNN_LAYOUT_H_
