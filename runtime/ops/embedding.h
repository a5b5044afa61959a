// Embedding lookup as a graph operation; the mathematics is in kernels/embedding.h.
#ifndef LANEWISE_RUNTIME_OPS_EMBEDDING_H_
#define LANEWISE_RUNTIME_OPS_EMBEDDING_H_

#include "runtime/graph.h"

namespace lanewise::runtime {

// y [R,C] = table[ids] from table [V,C], ids int32 [R,1], each below V (the caller checks).
// The gradient is added row by row within fixed blocks of columns.
TensorId Embedding(Graph& graph, TensorId table, TensorId ids);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_EMBEDDING_H_
