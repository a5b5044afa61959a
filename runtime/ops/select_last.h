// The last valid row of each sequence: what the next token is predicted from.
#ifndef LANEWISE_RUNTIME_OPS_SELECT_LAST_H_
#define LANEWISE_RUNTIME_OPS_SELECT_LAST_H_

#include "runtime/graph.h"

namespace lanewise::runtime {

// y [B,C] from x [B * T, C]: row lengths[b] - 1 of sequence b, lengths int32 [B,1] (unbound: T).
// Not differentiable.
TensorId SelectLast(Graph& graph, TensorId x, TensorId lengths, size_t sequences);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_SELECT_LAST_H_
