// Attention of new tokens over a key/value cache as a graph operation; the mathematics is in
// kernels/cached_attention.h.
#ifndef LANEWISE_RUNTIME_OPS_CACHED_ATTENTION_H_
#define LANEWISE_RUNTIME_OPS_CACHED_ATTENTION_H_

#include "runtime/graph.h"
#include "runtime/ops/attention.h"

namespace lanewise::runtime {

struct CachedAttentionArgs {
  TensorId qkv;            // [sequences * steps, (heads + 2 * kv_heads) * head_dim], rotated
  AttentionShape shape;
  TensorId starts;         // int32 [sequences,1]: tokens in the cache before this window
  TensorId lengths;        // optional int32 [sequences,1]: valid steps
  TensorId keys, values;   // external [sequences * capacity, kv_heads * head_dim]: appended to
};

// out [N, heads * head_dim]; rows beyond a sequence's length are zero. Appends the window's keys and values to the cache first;
// starts + length must not exceed the capacity (checked). Not differentiable.
TensorId CachedAttention(Graph& graph, const CachedAttentionArgs& args);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_CACHED_ATTENTION_H_
