// Causal attention as a graph operation; the mathematics is in kernels/attention.h.
#ifndef LANEWISE_RUNTIME_OPS_ATTENTION_H_
#define LANEWISE_RUNTIME_OPS_ATTENTION_H_

#include <cstddef>
#include <string_view>

#include "runtime/graph.h"

namespace lanewise::runtime {

// How heads and sequences lie in qkv [N, (heads + 2 * kv_heads) * head_dim], N = sequences * steps:
// q, k and v side by side, rotated. Query head h uses key/value head h / (heads / kv_heads).
struct AttentionShape {
  size_t sequences = 1;
  size_t heads = 0;
  size_t kv_heads = 0;

  size_t Group() const { return heads / kv_heads; }
  size_t HeadDim(size_t qkv_cols) const { return qkv_cols / (heads + 2 * kv_heads); }
  // Throws when the shape does not fit qkv; `name` begins the message.
  void Check(std::string_view name, const TensorInfo& qkv) const;
};

// out [N, heads * head_dim]: each sequence by itself from its first token. Parallel over sequences
// and heads, and over tiles of queries or chunks of keys where these are few; by shape alone.
// Memory is linear in steps.
TensorId Attention(Graph& graph, TensorId qkv, const AttentionShape& shape);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_ATTENTION_H_
