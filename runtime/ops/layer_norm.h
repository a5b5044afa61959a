// Layer normalization as a graph operation; the mathematics is in kernels/layer_norm.h.
#ifndef LANEWISE_RUNTIME_OPS_LAYER_NORM_H_
#define LANEWISE_RUNTIME_OPS_LAYER_NORM_H_

#include "runtime/graph.h"

namespace lanewise::runtime {

// y [R,C] from x [R,C], w [1,C], b [1,C]. Rows run in parallel; parameter gradients are added by
// fixed blocks of rows.
TensorId LayerNorm(Graph& graph, TensorId x, TensorId w, TensorId b, float eps);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_LAYER_NORM_H_
