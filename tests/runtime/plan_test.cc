// The planner: buffers that live at the same time never overlap, memory is used again, dead nodes
// go.
#include <doctest/doctest.h>

#include <map>
#include <memory>
#include <string_view>

#include "runtime/check.h"
#include "runtime/op.h"
#include "runtime/ops/add.h"
#include "runtime/ops/layer_norm.h"
#include "runtime/ops/matmul.h"
#include "runtime/plan.h"

namespace lanewise::runtime {
namespace {

// A deep chain of norms and products whose output is external.
Graph Chain(size_t layers, size_t rows, size_t cols, bool gradients) {
  Graph g;
  const TensorId w = g.Parameter("w", 0, cols, cols, cols);
  const TensorId s = g.Parameter("s", cols * cols, 1, cols, cols);
  TensorId x = g.Activation("x", rows, cols);
  CopyTensor(g, g.External("in", rows, cols), x);
  for (size_t l = 0; l < layers; ++l) {
    g.SetLayer(static_cast<int>(l));
    x = Matmul(g, LayerNorm(g, x, s, s, 1e-5F), w, WeightLayout::kInOut, x);
  }
  g.SetLayer(-1);
  CopyTensor(g, x, g.External("out", rows, cols));
  static_cast<void>(gradients);
  return g;
}

TEST_CASE("no two tensors that are needed together share memory") {
  const Graph g = Chain(6, 33, 20, false);
  const Plan plan = MakePlan(g, 2);
  std::map<int32_t, std::pair<size_t, size_t>> life;
  for (size_t p = 0; p < plan.nodes.size(); ++p) {
    const Node& node = g.nodes()[plan.nodes[p]];
    for (const auto& ids : {node.inputs, node.outputs}) {
      for (const TensorId id : ids) {
        if (!id || g.Info(id).role != Role::kActivation) continue;
        auto [it, fresh] = life.try_emplace(id.index, p, p);
        it->second.second = p;
      }
    }
  }
  for (const auto& [a, la] : life) {
    for (const auto& [b, lb] : life) {
      // In-place sharing ends one life in the node where the other begins.
      if (a >= b || la.second <= lb.first || lb.second <= la.first) continue;
      const size_t oa = plan.tensor_offset[static_cast<size_t>(a)];
      const size_t ob = plan.tensor_offset[static_cast<size_t>(b)];
      const bool apart = oa + g.Info({a}).Bytes() <= ob || ob + g.Info({b}).Bytes() <= oa;
      CAPTURE(a);
      CAPTURE(b);
      CHECK(apart);
    }
  }
}

TEST_CASE("memory of a forward pass does not grow with depth") {
  const size_t shallow = MakePlan(Chain(3, 64, 64, false), 1).arena_bytes;
  const size_t deep = MakePlan(Chain(30, 64, 64, false), 1).arena_bytes;
  CHECK(deep == shallow);
}

TEST_CASE("nodes without an effect are left out") {
  Graph g = Chain(2, 8, 8, false);
  const size_t before = MakePlan(g, 1).nodes.size();
  const TensorId x = g.Activation("unused", 8, 8);
  CopyTensor(g, g.External("other", 8, 8), x);
  Add(g, x, x);
  CHECK(MakePlan(g, 1).nodes.size() == before);
}

TEST_CASE("an output does not take over what the node reads through a view as well") {
  Graph g;
  const TensorId w = g.Parameter("w", 0, 8, 8, 8);
  const TensorId x = g.Activation("x", 16, 8);
  CopyTensor(g, g.External("in", 16, 8), x);
  const TensorId y = Matmul(g, g.View(x, 0, 8), w, WeightLayout::kInOut, x);
  CopyTensor(g, y, g.External("out", 16, 8));
  const Plan plan = MakePlan(g, 1);
  CHECK(plan.tensor_offset[static_cast<size_t>(x.index)] !=
        plan.tensor_offset[static_cast<size_t>(y.index)]);
}

// Two copies of its input.
class TwoCopies : public Op {
 public:
  std::string_view name() const override { return "two_copies"; }
  void Run(const OpArgs&) const override {}
  int InPlaceInput(size_t) const override { return 0; }
};

TEST_CASE("two outputs do not take over the same input") {
  Graph g;
  const TensorId x = g.Activation("x", 16, 8);
  CopyTensor(g, g.External("in", 16, 8), x);
  const TensorId first = g.Activation("first", 16, 8);
  const TensorId second = g.Activation("second", 16, 8);
  g.Add(std::make_shared<TwoCopies>(), {x}, {first, second});
  CopyTensor(g, second, g.External("out", 16, 8));  // the first one's life ends in its node
  const Plan plan = MakePlan(g, 1);
  CHECK(plan.tensor_offset[static_cast<size_t>(first.index)] !=
        plan.tensor_offset[static_cast<size_t>(second.index)]);
}

}  // namespace
}  // namespace lanewise::runtime
