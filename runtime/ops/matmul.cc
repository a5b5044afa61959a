#include "runtime/ops/matmul.h"

#include "runtime/check.h"
#include "runtime/matmul.h"

namespace lanewise::runtime {

namespace {

using kernels::AsOperand;
using kernels::AsTransposed;
using kernels::MatmulArgs;
using kernels::MatmulEpilogue;
using kernels::MatmulOperand;

double Flops(const Tensor& x, const Tensor& y) {
  return 2.0 * static_cast<double>(x.rows) * static_cast<double>(x.cols) *
         static_cast<double>(y.cols);
}

// out = in · W (or Wᵀ), plus the residual. Serves y = x W and dX = dY Wᵀ alike.
// in: x, w, residual or none. out: y.
class MatmulOp final : public Op {
 public:
  MatmulOp(std::string_view name, bool transposed, WeightLayout layout)
      : name_(name), transposed_(transposed), layout_(layout) {}
  std::string_view name() const override { return name_; }
  int InPlaceInput(size_t) const override { return 2; }

  size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor> out,
                        size_t workers) const override {
    return MatmulScratchBytes(in[0].rows, out[0].cols, in[0].cols, workers, IsBf16(in[1]));
  }

  void Run(const OpArgs& args) const override {
    const Mat<const float> x = args.in[0].F32();
    const Tensor& w = args.in[1];
    const Mat<float> y = args.out[0].F32();
    MatmulArgs product{.a = AsOperand(x),
                       .b = AsWeights(w, transposed_),
                       .c = y.data,
                       .c_stride = y.stride,
                       .m = x.rows,
                       .n = y.cols,
                       .k = x.cols,
                       .bf16 = IsBf16(w)};
    if (args.in[2]) {
      product.epilogue = MatmulEpilogue::kResidual;
      product.residual = args.in[2].F32().data;
      product.residual_stride = args.in[2].stride;
    }
    runtime::Matmul(args.parallel, product, args.workspace);
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override;

  OpCost Cost(std::span<const Tensor> in, std::span<const Tensor> out) const override {
    OpCost cost = Op::Cost(in, out);
    cost.flops = Flops(in[0], out[0]);
    return cost;
  }

 private:
  std::string_view name_;
  bool transposed_;
  WeightLayout layout_;
};

// dW += xᵀ dY for W [in, out], dYᵀ x for W [out, in]. in: x, dy. out: dw (added to).
class MatmulWeightGradOp final : public Op {
 public:
  MatmulWeightGradOp(WeightLayout layout, bool bf16) : layout_(layout), bf16_(bf16) {}
  std::string_view name() const override { return "matmul dW"; }

  size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor> out,
                        size_t workers) const override {
    return MatmulScratchBytes(out[0].rows, out[0].cols, in[0].rows, workers, bf16_);
  }

  void Run(const OpArgs& args) const override {
    Mat<const float> left = args.in[0].F32();
    Mat<const float> right = args.in[1].F32();
    if (layout_ == WeightLayout::kOutIn) std::swap(left, right);
    const Mat<float> dw = args.out[0].F32();
    runtime::Matmul(args.parallel,
                    {.a = AsTransposed(left),
                     .b = {.strided = AsOperand(right)},
                     .c = dw.data,
                     .c_stride = dw.stride,
                     .m = dw.rows,
                     .n = dw.cols,
                     .k = left.rows,
                     .epilogue = MatmulEpilogue::kAccumulate,
                     .bf16 = bf16_},
                    args.workspace);
  }

  OpCost Cost(std::span<const Tensor> in, std::span<const Tensor> out) const override {
    OpCost cost = Op::Cost(in, out);
    cost.flops = Flops(in[0], in[1]);
    return cost;
  }

 private:
  WeightLayout layout_;
  bool bf16_;
};

void MatmulOp::Differentiate(GradBuilder& builder, const Node& node) const {
  const TensorId x = node.inputs[0];
  const TensorId w = node.inputs[1];
  const TensorId dy = builder.Grad(node.outputs[0]);
  if (!dy) return;
  if (node.inputs[2]) builder.PassGrad(node.inputs[2], dy);
  if (const TensorId dw = builder.ParameterGrad(w)) {
    const bool bf16 = builder.Info(w).dtype == DType::kBFloat16;
    builder.Add(std::make_shared<MatmulWeightGradOp>(layout_, bf16), {x, dy}, {dw});
  }
  if (builder.Wants(x)) {
    const auto [dx, residual] = builder.GradTarget(x);
    builder.Add(std::make_shared<MatmulOp>("matmul dX", !transposed_, layout_), {dy, w, residual},
                {dx});
  }
}

}  // namespace

namespace {

// Columns of the product.
size_t CheckedColumns(const Graph& graph, TensorId x, TensorId w, bool transposed) {
  const TensorInfo& in = graph.Info(x);
  const TensorInfo& weight = graph.Info(w);
  LW_CHECK(in.cols == (transposed ? weight.cols : weight.rows), "matmul: x has ", in.cols,
           " columns, ", weight.name, " is [", weight.rows, ", ", weight.cols, "]",
           transposed ? " (out, in)" : " (in, out)");
  graph.CheckType("matmul", x);
  LW_CHECK(weight.dtype != DType::kInt32, "matmul: ", weight.name, " is int32");
  return transposed ? weight.rows : weight.cols;
}

}  // namespace

TensorId Matmul(Graph& graph, TensorId x, TensorId w, WeightLayout layout, TensorId residual) {
  const TensorInfo in = graph.Info(x);
  const bool transposed = layout == WeightLayout::kOutIn;
  const size_t n = CheckedColumns(graph, x, w, transposed);
  if (residual) {
    const TensorInfo& r = graph.Info(residual);
    LW_CHECK(r.rows == in.rows && r.cols == n, "matmul: residual is [", r.rows, ", ", r.cols,
             "], the product [", in.rows, ", ", n, "]");
    graph.CheckType("matmul", residual);
  }
  const TensorId y = graph.Activation(graph.Info(w).name, in.rows, n);
  graph.Add(std::make_shared<MatmulOp>("matmul", transposed, layout), {x, w, residual}, {y});
  return y;
}

void MatmulTo(Graph& graph, TensorId x, TensorId w, WeightLayout layout, TensorId y) {
  const bool transposed = layout == WeightLayout::kOutIn;
  const size_t n = CheckedColumns(graph, x, w, transposed);
  const TensorInfo& out = graph.Info(y);
  LW_CHECK(out.rows == graph.Info(x).rows && out.cols == n, "matmul: ", out.name, " is [", out.rows,
           ", ", out.cols, "], the product [", graph.Info(x).rows, ", ", n, "]");
  graph.CheckType("matmul", y);
  graph.Add(std::make_shared<MatmulOp>("matmul", transposed, layout), {x, w, TensorId()}, {y});
}

}  // namespace lanewise::runtime
