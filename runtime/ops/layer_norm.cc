#include "runtime/ops/layer_norm.h"

#include "kernels/layer_norm.h"
#include "runtime/check.h"
#include "runtime/ops/row_partials.h"

namespace lanewise::runtime {

namespace {

// in: x, w, mean, rstd, dy, residual or none. out: dx, dw or none, db or none.
class LayerNormBackwardOp final : public Op {
 public:
  std::string_view name() const override { return "layer_norm backward"; }
  int InPlaceInput(size_t output) const override { return output == 0 ? 4 : -1; }

  size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor>,
                        size_t) const override {
    return RowPartialsBytes(in[0].rows, in[0].cols, 2 * in[0].cols);
  }

  void Run(const OpArgs& args) const override {
    const Mat<const float> x = args.in[0].F32();
    const Mat<const float> dy = args.in[4].F32();
    const Mat<const float> residual =
        args.in[5] ? Mat<const float>(args.in[5].F32()) : Mat<const float>{};
    const Mat<float> dx = args.out[0].F32();
    const std::span<float> mean = args.in[2].Flat();
    const std::span<float> rstd = args.in[3].Flat();
    const size_t cols = x.cols;
    ForRowPartials(
        args.parallel, x.rows, cols, 2 * cols, args.workspace,
        [&](size_t row, size_t count, std::span<float> partial) {
          kernels::LayerNormBackward(
              x.Rows(row, count), args.in[1].Flat(), mean.subspan(row, count),
              rstd.subspan(row, count), dy.Rows(row, count), dx.Rows(row, count),
              partial.first(cols), partial.last(cols),
              residual.data != nullptr ? residual.Rows(row, count) : residual);
        },
        [&](Mat<const float> partials) {
          if (args.out[1]) kernels::AddRows(partials.Cols(0, cols), args.out[1].Flat());
          if (args.out[2]) kernels::AddRows(partials.Cols(cols, cols), args.out[2].Flat());
        });
  }
};

// in: x, w, b. out: y, mean, rstd.
class LayerNormOp final : public Op {
 public:
  explicit LayerNormOp(float eps) : eps_(eps) {}
  std::string_view name() const override { return "layer_norm"; }

  void Run(const OpArgs& args) const override {
    const Mat<const float> x = args.in[0].F32();
    const Mat<float> y = args.out[0].F32();
    const std::span<float> mean = args.out[1].Flat();
    const std::span<float> rstd = args.out[2].Flat();
    const Pieces blocks = CutRows(x.rows, x.cols);
    args.parallel.For(blocks.count, [&](size_t block, size_t) {
      const size_t row = blocks.Begin(block);
      const size_t count = blocks.Size(block);
      kernels::LayerNormForward(x.Rows(row, count), args.in[1].Flat(), args.in[2].Flat(), eps_,
                                y.Rows(row, count), mean.subspan(row, count),
                                rstd.subspan(row, count));
    });
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    const TensorId dy = builder.Grad(node.outputs[0]);
    if (!dy) return;
    const TensorId x = node.inputs[0];
    const auto [dx, residual] = builder.GradTarget(x);
    builder.Add(std::make_shared<LayerNormBackwardOp>(),
                {x, node.inputs[1], node.outputs[1], node.outputs[2], dy, residual},
                {dx, builder.ParameterGrad(node.inputs[1]), builder.ParameterGrad(node.inputs[2])});
  }

 private:
  float eps_;
};

}  // namespace

TensorId LayerNorm(Graph& graph, TensorId x, TensorId w, TensorId b, float eps) {
  const TensorInfo info = graph.Info(x);
  for (TensorId p : {w, b}) {
    const TensorInfo& param = graph.Info(p);
    LW_CHECK(param.rows == 1 && param.cols == info.cols, "layer_norm: ", param.name, " is [",
             param.rows, ", ", param.cols, "], x has ", info.cols, " columns");
  }
  LW_CHECK(eps > 0, "layer_norm: eps is ", eps);
  graph.CheckType("layer_norm", x);
  const TensorId y = graph.Activation("layer_norm", info.rows, info.cols);
  const TensorId mean = graph.Activation("mean", info.rows, 1);
  const TensorId rstd = graph.Activation("rstd", info.rows, 1);
  graph.Add(std::make_shared<LayerNormOp>(eps), {x, w, b}, {y, mean, rstd});
  return y;
}

}  // namespace lanewise::runtime
