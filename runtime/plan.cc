#include "runtime/plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "runtime/check.h"

namespace lanewise::runtime {

namespace {

constexpr size_t kAlign = 64;
constexpr size_t kNever = std::numeric_limits<size_t>::max();

size_t AlignUp(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// A piece of arena memory that several tensors may share one after the other (in-place operations).
struct Buffer {
  size_t bytes = 0;
  size_t first = kNever;  // positions in the running order, inclusive
  size_t last = 0;
  size_t offset = 0;
};

size_t BaseOf(const Graph& graph, TensorId id) {
  const TensorInfo& info = graph.Info(id);
  return static_cast<size_t>(info.view_of ? info.view_of.index : id.index);
}

std::vector<Tensor> Shapes(const Graph& graph, const std::vector<TensorId>& ids) {
  std::vector<Tensor> shapes;
  for (TensorId id : ids) shapes.push_back(graph.Shape(id));
  return shapes;
}

// Backwards from the nodes that write what the caller sees.
std::vector<size_t> LiveNodes(const Graph& graph) {
  std::vector<bool> needed(graph.tensors().size(), false);
  std::vector<size_t> live;
  for (size_t i = graph.nodes().size(); i-- > 0;) {
    const Node& node = graph.nodes()[i];
    const bool used = std::any_of(node.outputs.begin(), node.outputs.end(), [&](TensorId id) {
      return id && (graph.Info(id).role != Role::kActivation || needed[BaseOf(graph, id)]);
    });
    if (!used) continue;
    live.push_back(i);
    for (TensorId id : node.inputs) {
      if (id) needed[BaseOf(graph, id)] = true;
    }
  }
  std::reverse(live.begin(), live.end());
  return live;
}

class Planner {
 public:
  Planner(const Graph& graph, size_t workers) : graph_(graph), workers_(workers) {}

  Plan Make() {
    plan_.workers = workers_;
    plan_.nodes = LiveNodes(graph_);
    FindLifetimes();
    ShareInPlace();
    AddWorkspaces();
    PlaceBuffers();
    plan_.tensor_offset.assign(graph_.tensors().size(), Plan::kNone);
    for (size_t t = 0; t < graph_.tensors().size(); ++t) {
      if (buffer_of_[t] == Plan::kNone) continue;
      plan_.tensor_offset[t] = buffers_[Root(buffer_of_[t])].offset;
    }
    for (size_t t = 0; t < graph_.tensors().size(); ++t) {
      const TensorInfo& info = graph_.tensors()[t];
      if (!info.view_of) continue;
      const size_t base = plan_.tensor_offset[static_cast<size_t>(info.view_of.index)];
      if (base != Plan::kNone) plan_.tensor_offset[t] = base + info.view_col * SizeOf(info.dtype);
    }
    return std::move(plan_);
  }

 private:
  void Touch(TensorId id, size_t position) {
    if (!id || graph_.Info(id).role != Role::kActivation) return;
    const size_t base = BaseOf(graph_, id);
    if (buffer_of_[base] == Plan::kNone) {
      buffer_of_[base] = buffers_.size();
      buffers_.push_back({.bytes = AlignUp(graph_.tensors()[base].Bytes())});
    }
    Buffer& buffer = buffers_[buffer_of_[base]];
    buffer.first = std::min(buffer.first, position);
    buffer.last = std::max(buffer.last, position);
  }

  void FindLifetimes() {
    buffer_of_.assign(graph_.tensors().size(), Plan::kNone);
    for (size_t p = 0; p < plan_.nodes.size(); ++p) {
      const Node& node = graph_.nodes()[plan_.nodes[p]];
      for (TensorId id : node.outputs) Touch(id, p);
      for (TensorId id : node.inputs) Touch(id, p);
    }
    parent_.resize(buffers_.size());
    std::iota(parent_.begin(), parent_.end(), size_t{0});
  }

  size_t Root(size_t buffer) const {
    while (parent_[buffer] != buffer) buffer = parent_[buffer];
    return buffer;
  }

  // An output takes over an input's buffer when this node is the input's last reader.
  void ShareInPlace() {
    for (size_t p = 0; p < plan_.nodes.size(); ++p) {
      const Node& node = graph_.nodes()[plan_.nodes[p]];
      for (size_t o = 0; o < node.outputs.size(); ++o) {
        const int i = node.op->InPlaceInput(o);
        if (i < 0 || !CanShare(node, o, static_cast<size_t>(i), p)) continue;
        const size_t in = Root(buffer_of_[BaseOf(graph_, node.inputs[static_cast<size_t>(i)])]);
        const size_t out = Root(buffer_of_[BaseOf(graph_, node.outputs[o])]);
        parent_[out] = in;
        buffers_[in].last = std::max(buffers_[in].last, buffers_[out].last);
      }
    }
  }

  bool CanShare(const Node& node, size_t o, size_t i, size_t position) const {
    const TensorId in = node.inputs[i];
    const TensorId out = node.outputs[o];
    if (!in || !out) return false;
    const TensorInfo& a = graph_.Info(in);
    const TensorInfo& b = graph_.Info(out);
    if (a.role != Role::kActivation || b.role != Role::kActivation) return false;
    if (a.view_of || b.view_of || a.Bytes() != b.Bytes()) return false;
    const size_t in_buffer = Root(buffer_of_[static_cast<size_t>(in.index)]);
    const size_t out_buffer = Root(buffer_of_[static_cast<size_t>(out.index)]);
    if (in_buffer == out_buffer) return false;
    if (buffers_[in_buffer].last != position || buffers_[out_buffer].first != position)
      return false;
    // The node must not read the same memory through a second input, as a view perhaps, nor write
    // it as another output.
    const auto uses = [&](TensorId id) {
      if (!id) return false;
      const size_t buffer = buffer_of_[BaseOf(graph_, id)];
      return buffer != Plan::kNone && Root(buffer) == in_buffer;
    };
    return std::count_if(node.inputs.begin(), node.inputs.end(), uses) == 1 &&
           std::none_of(node.outputs.begin(), node.outputs.end(), uses);
  }

  void AddWorkspaces() {
    for (size_t p = 0; p < plan_.nodes.size(); ++p) {
      const Node& node = graph_.nodes()[plan_.nodes[p]];
      const size_t bytes = AlignUp(node.op->WorkspaceBytes(Shapes(graph_, node.inputs),
                                                           Shapes(graph_, node.outputs), workers_));
      plan_.workspace_bytes.push_back(bytes);
      workspace_buffer_.push_back(buffers_.size());
      buffers_.push_back({.bytes = bytes, .first = p, .last = p});
      parent_.push_back(buffers_.size() - 1);
    }
  }

  // Largest first, each at the lowest offset that is free during its life. Large buffers set the
  // peak; placing them first leaves the gaps to the small ones.
  void PlaceBuffers() {
    std::vector<size_t> order;
    for (size_t b = 0; b < buffers_.size(); ++b) {
      if (parent_[b] == b && buffers_[b].bytes > 0) order.push_back(b);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return buffers_[a].bytes > buffers_[b].bytes; });
    std::vector<size_t> placed;  // by offset
    for (size_t b : order) {
      Buffer& buffer = buffers_[b];
      size_t offset = 0;
      for (size_t other : placed) {
        const Buffer& o = buffers_[other];
        if (o.last < buffer.first || o.first > buffer.last) continue;
        if (offset + buffer.bytes <= o.offset) break;
        offset = std::max(offset, o.offset + o.bytes);
      }
      buffer.offset = offset;
      plan_.arena_bytes = std::max(plan_.arena_bytes, offset + buffer.bytes);
      placed.insert(std::upper_bound(placed.begin(), placed.end(), b,
                                     [&](size_t x, size_t y) {
                                       return buffers_[x].offset < buffers_[y].offset;
                                     }),
                    b);
    }
    for (size_t b : workspace_buffer_) plan_.workspace_offset.push_back(buffers_[b].offset);
  }

  const Graph& graph_;
  size_t workers_;
  Plan plan_;
  std::vector<Buffer> buffers_;
  std::vector<size_t> parent_;     // in-place sharing: union of buffers
  std::vector<size_t> buffer_of_;  // by tensor
  std::vector<size_t> workspace_buffer_;
};

}  // namespace

Plan MakePlan(const Graph& graph, size_t workers) { return Planner(graph, workers).Make(); }

}  // namespace lanewise::runtime
