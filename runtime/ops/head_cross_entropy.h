// The output head and its cross-entropy in one operation, chunk of rows by chunk of rows, so that
// the logits of all rows are never in memory at once. The mathematics is in
// kernels/cross_entropy.h.
#ifndef LANEWISE_RUNTIME_OPS_HEAD_CROSS_ENTROPY_H_
#define LANEWISE_RUNTIME_OPS_HEAD_CROSS_ENTROPY_H_

#include "runtime/graph.h"
#include "runtime/ops/matmul.h"

namespace lanewise::runtime {

// logits = x W (or x Wᵀ), x [N,E]; targets int32 [N,1], -1 is ignored. External results, each may
// be left unbound: nll [N,1] the plain cross-entropy of each row, loss [N,1] the smoothed one that
// is trained. When the graph is differentiated the same pass makes the gradients, logits -> dX and
// dW, each row's loss weighted by scale [1,1] (one over the number of counted rows).
struct HeadCrossEntropyArgs {
  TensorId x, w;
  WeightLayout layout = WeightLayout::kInOut;
  TensorId targets, scale, nll, loss;
  float smoothing = 0;
};
void HeadCrossEntropy(Graph& graph, const HeadCrossEntropyArgs& args);

// Rows of one chunk for [rows, vocabulary]; by shape alone.
size_t HeadChunkRows(size_t rows, size_t width, size_t vocabulary);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_HEAD_CROSS_ENTROPY_H_
