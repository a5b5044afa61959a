#include "runtime/ops/rms_norm.h"

#include "kernels/rms_norm.h"
#include "runtime/check.h"
#include "runtime/ops/row_partials.h"

namespace lanewise::runtime {

namespace {

// in: x, w, rstd, dy, residual or none. out: dx, dw or none.
class RmsNormBackwardOp final : public Op {
 public:
  std::string_view name() const override { return "rms_norm backward"; }
  int InPlaceInput(size_t output) const override { return output == 0 ? 3 : -1; }

  size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor>,
                        size_t) const override {
    return RowPartialsBytes(in[0].rows, in[0].cols, in[0].cols);
  }

  void Run(const OpArgs& args) const override {
    const Mat<const float> x = args.in[0].F32();
    const Mat<const float> dy = args.in[3].F32();
    const Mat<const float> residual =
        args.in[4] ? Mat<const float>(args.in[4].F32()) : Mat<const float>{};
    const Mat<float> dx = args.out[0].F32();
    const std::span<float> rstd = args.in[2].Flat();
    ForRowPartials(
        args.parallel, x.rows, x.cols, x.cols, args.workspace,
        [&](size_t row, size_t count, std::span<float> partial) {
          kernels::RmsNormBackward(x.Rows(row, count), args.in[1].Flat(), rstd.subspan(row, count),
                                   dy.Rows(row, count), dx.Rows(row, count), partial,
                                   residual.data != nullptr ? residual.Rows(row, count) : residual);
        },
        [&](Mat<const float> partials) {
          if (args.out[1]) kernels::AddRows(partials, args.out[1].Flat());
        });
  }
};

// in: x, w. out: y, rstd.
class RmsNormOp final : public Op {
 public:
  explicit RmsNormOp(float eps) : eps_(eps) {}
  std::string_view name() const override { return "rms_norm"; }

  void Run(const OpArgs& args) const override {
    const Mat<const float> x = args.in[0].F32();
    const Mat<float> y = args.out[0].F32();
    const std::span<float> rstd = args.out[1].Flat();
    const Pieces blocks = CutRows(x.rows, x.cols);
    args.parallel.For(blocks.count, [&](size_t block, size_t) {
      const size_t row = blocks.Begin(block);
      const size_t count = blocks.Size(block);
      kernels::RmsNormForward(x.Rows(row, count), args.in[1].Flat(), eps_, y.Rows(row, count),
                              rstd.subspan(row, count));
    });
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    const TensorId dy = builder.Grad(node.outputs[0]);
    if (!dy) return;
    const auto [dx, residual] = builder.GradTarget(node.inputs[0]);
    builder.Add(std::make_shared<RmsNormBackwardOp>(),
                {node.inputs[0], node.inputs[1], node.outputs[1], dy, residual},
                {dx, builder.ParameterGrad(node.inputs[1])});
  }

 private:
  float eps_;
};

}  // namespace

TensorId RmsNorm(Graph& graph, TensorId x, TensorId w, float eps) {
  const TensorInfo info = graph.Info(x);
  const TensorInfo& param = graph.Info(w);
  LW_CHECK(param.rows == 1 && param.cols == info.cols, "rms_norm: ", param.name, " is [",
           param.rows, ", ", param.cols, "], x has ", info.cols, " columns");
  LW_CHECK(eps > 0, "rms_norm: eps is ", eps);
  graph.CheckType("rms_norm", x);
  const TensorId y = graph.Activation("rms_norm", info.rows, info.cols);
  const TensorId rstd = graph.Activation("rstd", info.rows, 1);
  graph.Add(std::make_shared<RmsNormOp>(eps), {x, w}, {y, rstd});
  return y;
}

}  // namespace lanewise::runtime
