// The description from which everything else is derived: training step, evaluation, prefill,
// decoding.
#ifndef LANEWISE_RUNTIME_GRAPH_H_
#define LANEWISE_RUNTIME_GRAPH_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/op.h"
#include "runtime/tensor.h"

namespace lanewise::runtime {

// Nodes run in the order in which they were added. Shapes are fixed; what changes from run to run
// is an input. Copyable; operations are shared and immutable.
class Graph {
 public:
  // Tensors. `name` serves messages and profiles.
  TensorId Activation(std::string name, size_t rows, size_t cols, DType dtype = DType::kFloat32);
  TensorId External(std::string name, size_t rows, size_t cols, DType dtype = DType::kFloat32);
  TensorId Constant(std::string name, size_t rows, size_t cols, std::vector<float> values);
  // A matrix in the flat parameter buffer: element (r, c) is at offset + r * stride + c.
  // Frozen parameters (trained = false) get no gradient. A bf16 one is read from Weights::half; its
  // gradient is float32.
  TensorId Parameter(std::string name, size_t offset, size_t rows, size_t cols, size_t stride,
                     bool trained = true, DType dtype = DType::kFloat32);
  // Columns [col, col + cols) of an activation. Writers of all views together fill the base. With
  // gradients, the columns that are read through views are all that there are, no two views overlap
  // in part, and who reads the base whole comes before those who read views. Differentiate checks.
  TensorId View(TensorId base, size_t col, size_t cols);

  void Add(std::shared_ptr<const Op> op, std::vector<TensorId> inputs,
           std::vector<TensorId> outputs);

  // Appends the backward nodes of everything added so far, last to first. Operations that compute a
  // loss seed the gradients (see runtime/ops/head_cross_entropy.h). Called once.
  void Differentiate();

  // Nodes added from now on belong to this layer (-1: none); recomputation works by layer.
  void SetLayer(int layer) { layer_ = layer; }

  const TensorInfo& Info(TensorId id) const { return tensors_[static_cast<size_t>(id.index)]; }
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const std::vector<Node>& nodes() const { return nodes_; }
  // Where the backward nodes begin; nodes().size() before Differentiate.
  size_t forward_nodes() const { return forward_nodes_; }

  // Checkpoints activations by layer: after Differentiate, clones each layer's forward nodes in
  // front of its backward nodes, so that only what enters a layer is kept from the forward pass.
  void RecomputeLayers();

  // The tensor without memory, as WorkspaceBytes and Cost want it.
  Tensor Shape(TensorId id) const;
  // Refuses a tensor that operation `op` cannot work with. No tensor is no mistake.
  void CheckType(std::string_view op, TensorId id, DType dtype = DType::kFloat32) const;

 private:
  friend class GradBuilder;
  class LayerCloner;
  TensorId New(TensorInfo info);

  std::vector<TensorInfo> tensors_;
  std::vector<Node> nodes_;
  std::vector<std::shared_ptr<std::vector<float>>> constants_;
  std::unordered_map<int32_t, bool> trained_;
  size_t forward_nodes_ = 0;
  bool differentiated_ = false;
  int layer_ = -1;
};

// What Op::Differentiate works with. Backward nodes are appended in order; a tensor's gradient is
// complete when its producer is reached, because all its readers come later in the forward pass.
class GradBuilder {
 public:
  explicit GradBuilder(Graph& graph) : graph_(graph) {}

  Graph& graph() { return graph_; }
  const TensorInfo& Info(TensorId id) const { return graph_.Info(id); }

  // The gradient of a tensor as far as it is known; no tensor when nothing depends on it.
  TensorId Grad(TensorId x) const;

  // Whether a gradient with respect to x is wanted: activations and trained parameters.
  bool Wants(TensorId x) const;

  // For an operation that can add: where dx goes, and the gradient so far (maybe none) that has to
  // be added to it. They may share memory. Afterwards Grad(x) is `out`.
  struct Target {
    TensorId out;
    TensorId residual;
  };
  Target GradTarget(TensorId x);

  // For an operation that can only overwrite: where its dx goes. When there already is a gradient,
  // an addition node follows: call FinishGrad(x, out) after adding the node that writes `out`.
  TensorId GradOverwrite(TensorId x);
  void FinishGrad(TensorId x, TensorId out);

  // Adds an existing tensor of the same shape to the gradient of x (the branch of a residual
  // connection).
  void PassGrad(TensorId x, TensorId dy);

  // The gradient of a trained parameter: operations add to it. No tensor for a frozen one or for
  // none.
  TensorId ParameterGrad(TensorId parameter);

  void Add(std::shared_ptr<const Op> op, std::vector<TensorId> inputs,
           std::vector<TensorId> outputs) {
    graph_.Add(std::move(op), std::move(inputs), std::move(outputs));
  }

  // Replaces the node that is being differentiated: a loss that computes its gradient at once.
  void ReplaceNode(std::shared_ptr<const Op> op, std::vector<TensorId> inputs,
                   std::vector<TensorId> outputs);

 private:
  friend class Graph;
  TensorId NewGrad(TensorId x);

  Graph& graph_;
  std::unordered_map<int32_t, TensorId> grads_;
  std::unordered_map<int32_t, TensorId> base_grads_;  // of tensors that have views
  std::unordered_map<int32_t, TensorId> parameter_grads_;
  size_t node_ = 0;
};

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_GRAPH_H_
