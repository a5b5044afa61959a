#include "runtime/graph.h"

#include <algorithm>
#include <set>
#include <utility>

#include "runtime/check.h"
#include "runtime/ops/add.h"

namespace lanewise::runtime {

size_t Op::WorkspaceBytes(std::span<const Tensor>, std::span<const Tensor>, size_t) const {
  return 0;
}

bool Op::OptionalInput(size_t) const { return false; }

bool Op::OptionalOutput(size_t) const { return false; }

int Op::InPlaceInput(size_t) const { return -1; }

void Op::Differentiate(GradBuilder&, const Node&) const {
  CheckFailed(StrCat(name(), ": this operation has no gradient"));
}

OpCost Op::Cost(std::span<const Tensor> in, std::span<const Tensor> out) const {
  OpCost cost;
  for (const auto& list : {in, out}) {
    for (const Tensor& t : list) {
      cost.bytes += static_cast<double>(t.rows * t.cols * SizeOf(t.dtype));
    }
  }
  return cost;
}

TensorId Graph::New(TensorInfo info) {
  LW_CHECK(info.rows > 0 && info.cols > 0, info.name, ": empty tensor [", info.rows, ", ",
           info.cols, "]");
  tensors_.push_back(std::move(info));
  return {static_cast<int32_t>(tensors_.size() - 1)};
}

TensorId Graph::Activation(std::string name, size_t rows, size_t cols, DType dtype) {
  return New({.name = std::move(name),
              .dtype = dtype,
              .role = Role::kActivation,
              .rows = rows,
              .cols = cols,
              .stride = cols});
}

TensorId Graph::External(std::string name, size_t rows, size_t cols, DType dtype) {
  return New({.name = std::move(name),
              .dtype = dtype,
              .role = Role::kExternal,
              .rows = rows,
              .cols = cols,
              .stride = cols});
}

TensorId Graph::Constant(std::string name, size_t rows, size_t cols, std::vector<float> values) {
  LW_CHECK(values.size() == rows * cols, name, ": ", values.size(), " values for [", rows, ", ",
           cols, "]");
  constants_.push_back(std::make_shared<std::vector<float>>(std::move(values)));
  return New({.name = std::move(name),
              .role = Role::kConstant,
              .rows = rows,
              .cols = cols,
              .stride = cols,
              .constant = constants_.back()->data()});
}

TensorId Graph::Parameter(std::string name, size_t offset, size_t rows, size_t cols, size_t stride,
                          bool trained, DType dtype) {
  LW_CHECK(stride >= cols, name, ": stride ", stride, " below ", cols, " columns");
  const TensorId id = New({.name = std::move(name),
                           .dtype = dtype,
                           .role = Role::kParameter,
                           .rows = rows,
                           .cols = cols,
                           .stride = stride,
                           .offset = offset});
  trained_[id.index] = trained;
  return id;
}

TensorId Graph::View(TensorId base, size_t col, size_t cols) {
  const TensorInfo info = Info(base);
  LW_CHECK(!info.view_of && info.role == Role::kActivation, info.name,
           ": a view needs an activation that is no view itself");
  LW_CHECK(col <= info.cols && cols <= info.cols - col, info.name, ": view of ", cols,
           " columns from ", col, " on, it has ", info.cols);
  return New({.name = info.name,
              .dtype = info.dtype,
              .role = Role::kActivation,
              .rows = info.rows,
              .cols = cols,
              .stride = info.stride,
              .view_of = base,
              .view_col = col});
}

void Graph::Add(std::shared_ptr<const Op> op, std::vector<TensorId> inputs,
                std::vector<TensorId> outputs) {
  nodes_.push_back({std::move(op), std::move(inputs), std::move(outputs), layer_});
  if (!differentiated_) forward_nodes_ = nodes_.size();
}

Tensor Graph::Shape(TensorId id) const {
  if (!id) return {};
  const TensorInfo& info = Info(id);
  return {nullptr, info.dtype, info.rows, info.cols, info.stride};
}

void Graph::CheckType(std::string_view op, TensorId id, DType dtype) const {
  if (!id) return;
  LW_CHECK(Info(id).dtype == dtype, op, ": ", Info(id).name, " is not ",
           dtype == DType::kFloat32 ? "float32"
           : dtype == DType::kInt32 ? "int32"
                                    : "bf16");
}

void Graph::Differentiate() {
  LW_CHECK(!differentiated_, "graph: Differentiate was called twice");
  differentiated_ = true;
  GradBuilder builder(*this);
  for (size_t i = forward_nodes_; i-- > 0;) {
    const Node node = nodes_[i];  // a copy: Add moves the list
    builder.node_ = i;
    SetLayer(node.layer);
    node.op->Differentiate(builder, node);
  }
  SetLayer(-1);
}

// The second life of what layers compute: a clone for each tensor that they make.
class Graph::LayerCloner {
 public:
  explicit LayerCloner(Graph* graph) : graph_(*graph) {}

  // The clone of a tensor that a layer makes, or of a view of one.
  TensorId Clone(TensorId id) {
    if (!id) return id;
    if (const auto it = clones_.find(id.index); it != clones_.end()) return it->second;
    TensorInfo info = graph_.Info(id);
    if (info.view_of) info.view_of = Clone(info.view_of);
    if (info.role == Role::kExternal) {
      info.role = Role::kActivation;
      info.stride = info.cols;
    }
    info.name += "'";
    const TensorId clone = graph_.New(std::move(info));
    clones_[id.index] = clone;
    return clone;
  }

  // What a node of a layer reads instead of `id`: its clone where there is one. A view whose base
  // was cloned follows it.
  TensorId Renamed(TensorId id) {
    if (!id) return id;
    const TensorId base = graph_.Info(id).view_of;
    if (base && clones_.contains(base.index)) return Clone(id);
    const auto it = clones_.find(id.index);
    return it == clones_.end() ? id : it->second;
  }

 private:
  Graph& graph_;
  std::unordered_map<int32_t, TensorId> clones_;
};

// The forward nodes of layer l are cloned as a block in front of the layer's first backward node. A
// clone reads the clones of the layer's own tensors and the originals of everything that comes from
// outside. Cloned nodes must have no effect outside their activations: external outputs are dropped
// to fresh activations.
void Graph::RecomputeLayers() {
  LW_CHECK(differentiated_, "graph: RecomputeLayers comes after Differentiate");
  const std::vector<Node> old = std::move(nodes_);
  nodes_.assign(old.begin(), old.begin() + static_cast<std::ptrdiff_t>(forward_nodes_));
  std::set<int> done;
  LayerCloner cloner(this);
  for (size_t i = forward_nodes_; i < old.size(); ++i) {
    const int layer = old[i].layer;
    if (layer >= 0 && done.insert(layer).second) {
      // What leaves the layer stays under its own name: the next layer kept it as its input.
      for (size_t j = 0; j < forward_nodes_; ++j) {
        if (old[j].layer != layer) continue;
        Node copy = old[j];
        for (TensorId& id : copy.inputs) id = cloner.Renamed(id);
        for (TensorId& id : copy.outputs) id = cloner.Clone(id);
        nodes_.push_back(std::move(copy));
      }
    }
    Node node = old[i];
    if (layer >= 0) {
      for (TensorId& id : node.inputs) id = cloner.Renamed(id);
    }
    nodes_.push_back(std::move(node));
  }
}

// A base with a gradient of its own has that of its views in it. Before, each view has its own,
// which are columns of one tensor: views that share no columns, or their gradients would mix.
TensorId GradBuilder::Grad(TensorId x) const {
  if (!x) return {};
  const TensorInfo info = Info(x);
  const auto whole = info.view_of ? grads_.find(info.view_of.index) : grads_.end();
  if (whole != grads_.end()) return graph_.View(whole->second, info.view_col, info.cols);
  if (const auto own = grads_.find(x.index); own != grads_.end()) return own->second;
  const TensorId base = info.view_of ? info.view_of : x;
  const auto parts = base_grads_.find(base.index);
  if (parts == base_grads_.end()) return {};
  size_t known = 0;
  for (const auto& [index, grad] : grads_) {
    const TensorInfo& view = Info({index});
    if (view.view_of != base) continue;
    const size_t begin = std::max(view.view_col, info.view_col);
    const size_t end = std::min(view.view_col + view.cols, info.view_col + info.cols);
    known += begin < end ? end - begin : 0;
  }
  if (known == 0) return {};
  LW_CHECK(known == info.cols, info.name, ": columns [", info.view_col, ", ",
           info.view_col + info.cols, ") have a gradient in ", known,
           " only: all that is read through views has to reach the loss, and no two views may "
           "overlap in part");
  return info.view_of ? graph_.View(parts->second, info.view_col, info.cols) : parts->second;
}

bool GradBuilder::Wants(TensorId x) const {
  if (!x) return false;
  const TensorInfo& info = Info(x);
  if (info.dtype == DType::kInt32) return false;
  if (info.role == Role::kParameter) return graph_.trained_.at(x.index);
  return info.role == Role::kActivation;
}

TensorId GradBuilder::NewGrad(TensorId x) {
  const TensorInfo info = Info(x);
  if (!info.view_of) return graph_.Activation("d " + info.name, info.rows, info.cols);
  const TensorInfo base = Info(info.view_of);
  auto [it, fresh] = base_grads_.try_emplace(info.view_of.index);
  if (fresh) it->second = graph_.Activation("d " + base.name, base.rows, base.cols);
  return graph_.View(it->second, info.view_col, info.cols);
}

GradBuilder::Target GradBuilder::GradTarget(TensorId x) {
  LW_CHECK(!Info(x).view_of || !grads_.contains(Info(x).view_of.index), Info(x).name,
           ": it is read whole after a view of it: read the whole before its views");
  const TensorId residual = Grad(x);
  if (residual && Info(x).view_of) return {residual, residual};
  const TensorId out = NewGrad(x);
  grads_[x.index] = out;
  return {out, residual};
}

TensorId GradBuilder::GradOverwrite(TensorId x) {
  if (!Grad(x)) return GradTarget(x).out;
  const TensorInfo info = Info(x);
  return graph_.Activation("d " + info.name, info.rows, info.cols);
}

void GradBuilder::FinishGrad(TensorId x, TensorId out) {
  const TensorId known = Grad(x);
  if (known == out) return;
  const Target target = GradTarget(x);
  AddTensors(graph_, target.residual, out, target.out);
}

void GradBuilder::PassGrad(TensorId x, TensorId dy) {
  if (!Wants(x)) return;
  if (!Grad(x) && !Info(x).view_of) {
    grads_[x.index] = dy;
    return;
  }
  const Target target = GradTarget(x);
  if (target.residual) {
    AddTensors(graph_, target.residual, dy, target.out);
  } else {
    CopyTensor(graph_, dy, target.out);
  }
}

TensorId GradBuilder::ParameterGrad(TensorId parameter) {
  if (!Wants(parameter)) return {};
  auto [it, fresh] = parameter_grads_.try_emplace(parameter.index);
  if (fresh) {
    TensorInfo info = Info(parameter);
    info.role = Role::kGradient;
    info.dtype = DType::kFloat32;
    info.name = "d " + info.name;
    it->second = graph_.New(std::move(info));
  }
  return it->second;
}

void GradBuilder::ReplaceNode(std::shared_ptr<const Op> op, std::vector<TensorId> inputs,
                              std::vector<TensorId> outputs) {
  Node& node = graph_.nodes_[node_];
  node.op = std::move(op);
  node.inputs = std::move(inputs);
  node.outputs = std::move(outputs);
}

}  // namespace lanewise::runtime
