// Rotary position embedding as graph operations; the mathematics is in kernels/rope.h.
#ifndef LANEWISE_RUNTIME_OPS_ROPE_H_
#define LANEWISE_RUNTIME_OPS_ROPE_H_

#include <cstddef>

#include "runtime/graph.h"

namespace lanewise::runtime {

// Cosines and sines for rows of sequences * steps tokens, once for all layers. Without `starts` a
// constant [steps, head_dim]: every sequence begins at position 0. With it (int32 [sequences,1],
// the tokens before this window; unbound: 0) an activation [sequences * steps, head_dim] that each
// run computes, for positions of any size.
TensorId RopeTable(Graph& graph, size_t sequences, size_t steps, size_t head_dim, double theta,
                   TensorId starts = {});

// qkv [N, C] with the first `heads` heads (those of q, then of k) of every row rotated; the other
// columns as they were. In place when nothing else reads qkv. Row r takes row r mod table.rows.
TensorId Rope(Graph& graph, TensorId qkv, TensorId table, size_t heads);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_ROPE_H_
