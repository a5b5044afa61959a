// RMS normalization as a graph operation; the mathematics is in kernels/rms_norm.h.
#ifndef LANEWISE_RUNTIME_OPS_RMS_NORM_H_
#define LANEWISE_RUNTIME_OPS_RMS_NORM_H_

#include "runtime/graph.h"

namespace lanewise::runtime {

// y [R,C] from x [R,C], w [1,C]. Rows run in parallel; dw is added by fixed blocks of rows.
TensorId RmsNorm(Graph& graph, TensorId x, TensorId w, float eps);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_RMS_NORM_H_
