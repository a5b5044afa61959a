// Matrix product with a weight as a graph operation; the engine is behind runtime/matmul.h.
#ifndef LANEWISE_RUNTIME_OPS_MATMUL_H_
#define LANEWISE_RUNTIME_OPS_MATMUL_H_

#include "runtime/graph.h"

namespace lanewise::runtime {

// How a weight lies in memory: y = x W with W [in, out], or y = x Wᵀ with W [out, in].
enum class WeightLayout { kInOut, kOutIn };

// y [N,out] = x [N,in] times the weight, plus `residual` [N,out] when given.
TensorId Matmul(Graph& graph, TensorId x, TensorId w, WeightLayout layout, TensorId residual = {});
// The same into an external tensor.
void MatmulTo(Graph& graph, TensorId x, TensorId w, WeightLayout layout, TensorId y);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_MATMUL_H_
