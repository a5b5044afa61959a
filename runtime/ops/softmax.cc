#include "runtime/ops/softmax.h"

#include "kernels/softmax.h"
#include "runtime/check.h"
#include "runtime/partition.h"

namespace lanewise::runtime {

namespace {

// in: y, dy. out: dx.
class SoftmaxBackwardOp final : public Op {
 public:
  explicit SoftmaxBackwardOp(size_t groups) : groups_(groups) {}
  std::string_view name() const override { return "softmax backward"; }
  int InPlaceInput(size_t) const override { return 1; }

  void Run(const OpArgs& args) const override {
    const Mat<const float> y = args.in[0].F32();
    const Mat<const float> dy = args.in[1].F32();
    const Mat<float> dx = args.out[0].F32();
    const Pieces blocks = CutRows(y.rows, y.cols);
    args.parallel.For(blocks.count, [&](size_t block, size_t) {
      const size_t row = blocks.Begin(block);
      const size_t count = blocks.Size(block);
      kernels::SoftmaxBackward(y.Rows(row, count), dy.Rows(row, count), dx.Rows(row, count),
                               groups_);
    });
  }

 private:
  size_t groups_;
};

// in: x. out: y.
class SoftmaxOp final : public Op {
 public:
  explicit SoftmaxOp(size_t groups) : groups_(groups) {}
  std::string_view name() const override { return "softmax"; }
  int InPlaceInput(size_t) const override { return 0; }

  void Run(const OpArgs& args) const override {
    const Mat<const float> x = args.in[0].F32();
    const Mat<float> y = args.out[0].F32();
    const Pieces blocks = CutRows(x.rows, x.cols);
    args.parallel.For(blocks.count, [&](size_t block, size_t) {
      const size_t row = blocks.Begin(block);
      const size_t count = blocks.Size(block);
      kernels::SoftmaxForward(x.Rows(row, count), y.Rows(row, count), groups_);
    });
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    const TensorId dy = builder.Grad(node.outputs[0]);
    if (!dy) return;
    const TensorId dx = builder.GradOverwrite(node.inputs[0]);
    builder.Add(std::make_shared<SoftmaxBackwardOp>(groups_), {node.outputs[0], dy}, {dx});
    builder.FinishGrad(node.inputs[0], dx);
  }

 private:
  size_t groups_;
};

}  // namespace

TensorId Softmax(Graph& graph, TensorId x, size_t groups) {
  const TensorInfo info = graph.Info(x);
  LW_CHECK(groups > 0 && info.cols % groups == 0, "softmax: ", info.cols, " columns do not make ",
           groups, " equal groups");
  graph.CheckType("softmax", x);
  const TensorId y = graph.Activation("softmax", info.rows, info.cols);
  graph.Add(std::make_shared<SoftmaxOp>(groups), {x}, {y});
  return y;
}

}  // namespace lanewise::runtime
