// Token shift and channel shift as graph operations; the mathematics is in kernels/token_shift.h.
#ifndef LANEWISE_RUNTIME_OPS_TOKEN_SHIFT_H_
#define LANEWISE_RUNTIME_OPS_TOKEN_SHIFT_H_

#include "runtime/graph.h"

namespace lanewise::runtime {

// n [N,E], N = sequences * steps; parameters [1,E]. Optional tensors may be absent, or external and
// unbound in a run.
struct TokenShiftArgs {
  TensorId n;
  TensorId w1, w2, w4, mix_r, mix_k, mix_v;
  TensorId lengths;  // optional int32 [sequences,1]: valid steps
  TensorId carried_in,
      carried_out;  // optional external [sequences * 4, E]: the last rows of n, oldest first
  size_t sequences = 1;
};
struct TokenShiftOutputs {
  TensorId r, k, v;  // [N,E]
};
TokenShiftOutputs TokenShift(Graph& graph, const TokenShiftArgs& args);

struct ChannelShiftArgs {
  TensorId n;
  TensorId mix;  // [1,E]
  TensorId lengths;
  TensorId carried_in, carried_out;  // optional external [sequences, E]
  size_t sequences = 1;
};
TensorId ChannelShift(Graph& graph, const ChannelShiftArgs& args);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_TOKEN_SHIFT_H_
