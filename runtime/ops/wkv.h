// The WKV recurrence with slots as a graph operation; the mathematics is in kernels/wkv.h.
#ifndef LANEWISE_RUNTIME_OPS_WKV_H_
#define LANEWISE_RUNTIME_OPS_WKV_H_

#include "runtime/graph.h"

namespace lanewise::runtime {

// All [N,E] unless said; N = sequences * steps. Optional tensors may be absent, or external and
// unbound in a run.
struct WkvArgs {
  TensorId r, k, v, d;  // the raw products
  TensorId gates;       // [N,2S] after their softmax: write in the first S columns, then read
  TensorId decay_base, time_first;  // [1,E], parameters
  TensorId decay_scale;             // [1,E], constant exp(-slope)
  TensorId lengths;                 // optional int32 [sequences,1]: valid steps
  TensorId state_in, state_out;  // optional external [sequences * 2S, E]: num rows, then den rows
  size_t sequences = 1;
};

// ry [N,E] = sigmoid(r) * y. Parallel over sequences and channel blocks, and over chunks of time
// where these are few; by shape alone. No gradient flows into state_in.
TensorId Wkv(Graph& graph, const WkvArgs& args);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_WKV_H_
