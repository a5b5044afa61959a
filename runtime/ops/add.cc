#include "runtime/ops/add.h"

#include <cstring>

#include "runtime/check.h"
#include "runtime/partition.h"

namespace lanewise::runtime {

namespace {

void CheckSame(const char* what, const TensorInfo& a, const TensorInfo& b) {
  LW_CHECK(a.rows == b.rows && a.cols == b.cols, what, ": ", a.name, " is [", a.rows, ", ", a.cols,
           "], ", b.name, " is [", b.rows, ", ", b.cols, "]");
}

class AddOp final : public Op {
 public:
  std::string_view name() const override { return "add"; }
  int InPlaceInput(size_t) const override { return 0; }

  void Run(const OpArgs& args) const override {
    const Mat<const float> a = args.in[0].F32();
    const Mat<const float> b = args.in[1].F32();
    const Mat<float> y = args.out[0].F32();
    const Pieces blocks = CutRows(y.rows, y.cols);
    args.parallel.For(blocks.count, [&](size_t block, size_t) {
      for (size_t r = blocks.Begin(block); r < blocks.Begin(block + 1); ++r) {
        const float* pa = a.Row(r);
        const float* pb = b.Row(r);
        float* py = y.Row(r);
        for (size_t c = 0; c < y.cols; ++c) py[c] = pa[c] + pb[c];
      }
    });
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    const TensorId dy = builder.Grad(node.outputs[0]);
    if (!dy) return;
    builder.PassGrad(node.inputs[0], dy);
    builder.PassGrad(node.inputs[1], dy);
  }
};

class CopyOp final : public Op {
 public:
  std::string_view name() const override { return "copy"; }

  void Run(const OpArgs& args) const override {
    const Tensor& a = args.in[0];
    const Tensor& y = args.out[0];
    const size_t bytes = a.cols * SizeOf(a.dtype);
    for (size_t r = 0; r < a.rows; ++r) {
      std::memcpy(static_cast<std::byte*>(y.data) + r * y.stride * SizeOf(y.dtype),
                  static_cast<const std::byte*>(a.data) + r * a.stride * SizeOf(a.dtype), bytes);
    }
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    const TensorId dy = builder.Grad(node.outputs[0]);
    if (dy) builder.PassGrad(node.inputs[0], dy);
  }
};

}  // namespace

void AddTensors(Graph& graph, TensorId a, TensorId b, TensorId out) {
  CheckSame("add", graph.Info(a), graph.Info(b));
  CheckSame("add", graph.Info(a), graph.Info(out));
  for (const TensorId id : {a, b, out}) graph.CheckType("add", id);
  graph.Add(std::make_shared<AddOp>(), {a, b}, {out});
}

TensorId Add(Graph& graph, TensorId a, TensorId b) {
  const TensorInfo info = graph.Info(a);
  const TensorId out = graph.Activation(info.name, info.rows, info.cols);
  AddTensors(graph, a, b, out);
  return out;
}

void CopyTensor(Graph& graph, TensorId a, TensorId out) {
  CheckSame("copy", graph.Info(a), graph.Info(out));
  graph.CheckType("copy", out, graph.Info(a).dtype);
  graph.Add(std::make_shared<CopyOp>(), {a}, {out});
}

}  // namespace lanewise::runtime
