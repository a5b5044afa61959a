#include "runtime/ops/swiglu.h"

#include "kernels/swiglu.h"
#include "runtime/check.h"
#include "runtime/partition.h"

namespace lanewise::runtime {

namespace {

// in: gate_up, dh. out: d_gate_up.
class SwigluBackwardOp final : public Op {
 public:
  std::string_view name() const override { return "swiglu backward"; }
  int InPlaceInput(size_t) const override { return 0; }

  void Run(const OpArgs& args) const override {
    const Mat<const float> gate_up = args.in[0].F32();
    const Mat<const float> dh = args.in[1].F32();
    const Mat<float> d_gate_up = args.out[0].F32();
    const Pieces blocks = CutRows(gate_up.rows, gate_up.cols);
    args.parallel.For(blocks.count, [&](size_t block, size_t) {
      const size_t row = blocks.Begin(block);
      const size_t count = blocks.Size(block);
      kernels::SwigluBackward(gate_up.Rows(row, count), dh.Rows(row, count),
                              d_gate_up.Rows(row, count));
    });
  }
};

// in: gate_up. out: h.
class SwigluOp final : public Op {
 public:
  std::string_view name() const override { return "swiglu"; }

  void Run(const OpArgs& args) const override {
    const Mat<const float> gate_up = args.in[0].F32();
    const Mat<float> h = args.out[0].F32();
    const Pieces blocks = CutRows(gate_up.rows, gate_up.cols);
    args.parallel.For(blocks.count, [&](size_t block, size_t) {
      const size_t row = blocks.Begin(block);
      const size_t count = blocks.Size(block);
      kernels::SwigluForward(gate_up.Rows(row, count), h.Rows(row, count));
    });
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    const TensorId dh = builder.Grad(node.outputs[0]);
    if (!dh) return;
    const TensorId dx = builder.GradOverwrite(node.inputs[0]);
    builder.Add(std::make_shared<SwigluBackwardOp>(), {node.inputs[0], dh}, {dx});
    builder.FinishGrad(node.inputs[0], dx);
  }
};

}  // namespace

TensorId Swiglu(Graph& graph, TensorId gate_up) {
  const TensorInfo info = graph.Info(gate_up);
  LW_CHECK(info.cols % 2 == 0, "swiglu: gate_up has an odd number of columns: ", info.cols);
  graph.CheckType("swiglu", gate_up);
  const TensorId h = graph.Activation("swiglu", info.rows, info.cols / 2);
  graph.Add(std::make_shared<SwigluOp>(), {gate_up}, {h});
  return h;
}

}  // namespace lanewise::runtime
