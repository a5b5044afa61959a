// Dropout as a graph operation; the mathematics is in kernels/dropout.h.
#ifndef LANEWISE_RUNTIME_OPS_DROPOUT_H_
#define LANEWISE_RUNTIME_OPS_DROPOUT_H_

#include "runtime/graph.h"

namespace lanewise::runtime {

// y = x * mask / (1 - p) (+ residual). The mask is a function of (key, stream, row, column) alone:
// the same for any thread count, any sharding and after resuming. `key` int32 [4,1]: seed low, seed
// high, step, index of this graph's first row among the rows of the step. `stream` tells the places
// in a model apart.
TensorId Dropout(Graph& graph, TensorId x, float p, TensorId key, uint32_t stream,
                 TensorId residual = {});

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_DROPOUT_H_
