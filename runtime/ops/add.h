// Element-wise sum and copy: how gradients of a tensor with several readers come together.
#ifndef LANEWISE_RUNTIME_OPS_ADD_H_
#define LANEWISE_RUNTIME_OPS_ADD_H_

#include "runtime/graph.h"

namespace lanewise::runtime {

// Appends out = a + b; all [R, C]; out may be the memory of a or b.
void AddTensors(Graph& graph, TensorId a, TensorId b, TensorId out);
// y = a + b, differentiable.
TensorId Add(Graph& graph, TensorId a, TensorId b);
// Appends out = a.
void CopyTensor(Graph& graph, TensorId a, TensorId out);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_ADD_H_
