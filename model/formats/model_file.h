// What every model file is turned into, whatever its format: sizes, tokenizer, tensors by name.
#ifndef LANEWISE_MODEL_FORMATS_MODEL_FILE_H_
#define LANEWISE_MODEL_FORMATS_MODEL_FILE_H_

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/file.h"
#include "model/formats/tensor.h"
#include "model/json.h"

namespace lanewise::model {

// A tensor whose values are fetched when asked for, as float32: weights go from the mapping
// straight to where they are used.
struct NamedTensor {
  std::string name;
  Shape shape;  // one or two dimensions
  // Fills `out` with elements [first, first + out.size()).
  std::function<void(uint64_t first, std::span<float> out)> read;

  uint64_t Elements() const;
  std::vector<float> Values() const;
};

// config: "model" is "slot_rnn" or "llama"; sizes have the names of the command line's options:
//   slot_rnn: vocab_size layers dim heads ctx slots decay_rank ffn_mult ffn_dim
//   llama:    vocab_size layers dim heads kv_heads hidden_dim ctx tied norm_eps rope_theta
// tokenizer: what MakeTokenizer(json) takes; null where the file has none.
// Tensors: slot_rnn's names as in `gradients --json`; llama's are tok_embeddings,
//   layers.N.{attention_norm,wq,wk,wv,wo,ffn_norm,w1,w2,w3}, norm and, if untied, output, with the
//   rows of wq and wk in llama2.c's order (adjacent RoPE pairs).
struct ModelFile {
  std::string path;
  std::string format;  // "lrnnC02", "llama2c-v0", "safetensors", …
  Json config;
  Json tokenizer;
  std::vector<NamedTensor> tensors;
  std::shared_ptr<const void> owner;  // keeps the mapping

  const NamedTensor* Find(std::string_view name) const;
};

// A NamedTensor over a view whose bytes `owner` keeps alive.
NamedTensor MakeNamedTensor(TensorView view, std::shared_ptr<const void> owner);

// The same tensor to be written elsewhere, as float32 or rounded to bf16.
TensorSource MakeSource(const NamedTensor& tensor, bool bf16 = false);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_FORMATS_MODEL_FILE_H_
