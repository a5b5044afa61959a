// Attention of new tokens over a key/value cache as a graph operation; the mathematics is in
// kernels/cached_attention.h.
#ifndef LANEWISE_RUNTIME_OPS_CACHED_ATTENTION_H_
#define LANEWISE_RUNTIME_OPS_CACHED_ATTENTION_H_

#include "runtime/graph.h"
#include "runtime/ops/attention.h"

namespace lanewise::runtime {

struct CachedAttentionArgs {
  TensorId qkv;  // [sequences * steps, (heads + 2 * kv_heads) * head_dim], rotated
  AttentionShape shape;
  TensorId starts;   // int32 [sequences,1]: tokens in the cache before this window; unbound: 0
  TensorId lengths;  // optional int32 [sequences,1]: valid steps; unbound: all
  // External [sequences * capacity, kv_heads * head_dim], float32 or bf16, read and appended to in
  // place.
  TensorId keys, values;
  // What happens when a sequence outgrows its cache: an error, or the oldest tokens are forgotten
  // (token p lies in row p mod capacity and sees the last `capacity` tokens).
  bool slide = false;
};

// Appends the window's keys and values to the caches; then each token sees the cache up to its own.
// Returns [N, heads * head_dim], zero in the rows of steps that are not valid. Parallel over
// sequences and key/value heads, and over fixed chunks of the cache where these are few. Not
// differentiable.
TensorId CachedAttention(Graph& graph, const CachedAttentionArgs& args);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_CACHED_ATTENTION_H_
