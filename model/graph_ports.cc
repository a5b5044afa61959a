#include "model/graph_ports.h"

#include "runtime/check.h"
#include "runtime/ops/head_cross_entropy.h"
#include "runtime/ops/select_last.h"

namespace lanewise::model {

using runtime::Graph;
using runtime::TensorId;

void AddInputs(const GraphOptions& options, ModelGraph* m) {
  Graph& g = m->graph;
  m->tokens = g.External("tokens", options.sequences * options.steps, 1, runtime::DType::kInt32);
  if (options.dropout > 0) m->random_key = g.External("key", 4, 1, runtime::DType::kInt32);
  if (options.state || options.logits) {
    m->lengths = g.External("lengths", options.sequences, 1, runtime::DType::kInt32);
  }
}

void AddOutputs(const GraphOptions& options, TensorId x, const Head& head, ModelGraph* m) {
  LW_CHECK(!options.gradients || options.losses, "graph: gradients need losses");
  Graph& g = m->graph;
  g.SetLayer(-1);
  const size_t rows = options.sequences * options.steps;
  if (options.losses) {
    m->targets = g.External("targets", rows, 1, runtime::DType::kInt32);
    m->scale = g.External("scale", 1, 1);
    m->nll = g.External("nll", rows, 1);
    m->loss = g.External("loss", rows, 1);
    HeadCrossEntropy(g, {.x = head.norm(x),
                         .w = head.weights,
                         .layout = head.layout,
                         .targets = m->targets,
                         .scale = m->scale,
                         .nll = m->nll,
                         .loss = m->loss,
                         .smoothing = options.label_smoothing});
  }
  if (options.logits) {
    const TensorId last = SelectLast(g, x, m->lengths, options.sequences);
    const runtime::TensorInfo& w = g.Info(head.weights);
    const bool out_in = head.layout == runtime::WeightLayout::kOutIn;
    m->logits = g.External("logits", options.sequences, out_in ? w.rows : w.cols);
    MatmulTo(g, head.norm(last), head.weights, head.layout, m->logits);
  }
  if (options.gradients) g.Differentiate();
  if (options.recompute_layers) g.RecomputeLayers();
}

}  // namespace lanewise::model
