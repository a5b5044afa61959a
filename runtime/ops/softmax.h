// Softmax as a graph operation; the mathematics is in kernels/softmax.h.
#ifndef LANEWISE_RUNTIME_OPS_SOFTMAX_H_
#define LANEWISE_RUNTIME_OPS_SOFTMAX_H_

#include "runtime/graph.h"

namespace lanewise::runtime {

// y [R,C] from x [R,C]: each row is cut into `groups` equal runs, and each run is a softmax of its
// own.
TensorId Softmax(Graph& graph, TensorId x, size_t groups = 1);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_SOFTMAX_H_
