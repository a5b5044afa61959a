// What the graphs of all models begin and end with.
#ifndef LANEWISE_MODEL_GRAPH_PORTS_H_
#define LANEWISE_MODEL_GRAPH_PORTS_H_

#include <functional>

#include "model/model.h"
#include "runtime/ops/matmul.h"

namespace lanewise::model {

// Tokens, and with the options that need them lengths and the key of random numbers.
void AddInputs(const GraphOptions& options, ModelGraph* m);

// How the rows of the last layer become logits: norm(x) times the head.
struct Head {
  runtime::TensorId weights;
  runtime::WeightLayout layout = runtime::WeightLayout::kInOut;
  std::function<runtime::TensorId(runtime::TensorId)> norm;
};

// Losses of all rows of x and logits of the last ones, as the options ask; then gradients.
void AddOutputs(const GraphOptions& options, runtime::TensorId x, const Head& head, ModelGraph* m);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_GRAPH_PORTS_H_
