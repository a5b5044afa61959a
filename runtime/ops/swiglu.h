// SwiGLU as a graph operation; the mathematics is in kernels/swiglu.h.
#ifndef LANEWISE_RUNTIME_OPS_SWIGLU_H_
#define LANEWISE_RUNTIME_OPS_SWIGLU_H_

#include "runtime/graph.h"

namespace lanewise::runtime {

// h [R,F] = silu(gate) * up from gate_up [R,2F], gate in the first F columns.
TensorId Swiglu(Graph& graph, TensorId gate_up);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_SWIGLU_H_
