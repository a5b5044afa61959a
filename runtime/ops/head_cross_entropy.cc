#include "runtime/ops/head_cross_entropy.h"

#include <algorithm>

#include "kernels/cross_entropy.h"
#include "runtime/check.h"
#include "runtime/matmul.h"
#include "runtime/partition.h"

namespace lanewise::runtime {

namespace {

using kernels::AsOperand;
using kernels::AsTransposed;
using kernels::MatmulEpilogue;

struct Sizes {
  size_t rows, width, vocabulary, chunk, logits_bytes;
};

// in: x, w, targets, scale. out: nll or none, loss or none; with gradients also dx, dw or none.
class HeadCrossEntropyOp final : public Op {
 public:
  HeadCrossEntropyOp(WeightLayout layout, float smoothing, bool gradients)
      : layout_(layout), smoothing_(smoothing), gradients_(gradients) {}
  std::string_view name() const override {
    return gradients_ ? "head + cross_entropy + backward" : "head + cross_entropy";
  }
  bool OptionalInput(size_t input) const override { return input == 3 && !gradients_; }
  bool OptionalOutput(size_t output) const override { return output < 2; }

  size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor>,
                        size_t workers) const override {
    const Sizes s = SizesOf(in);
    const auto bytes = [&](size_t m, size_t n, size_t k) {
      return MatmulScratchBytes(m, n, k, workers, IsBf16(in[1]));
    };
    size_t scratch = bytes(s.chunk, s.vocabulary, s.width);
    if (gradients_) {
      const bool out_in = layout_ == WeightLayout::kOutIn;
      scratch = std::max(
          {scratch, bytes(s.chunk, s.width, s.vocabulary),
           bytes(out_in ? s.vocabulary : s.width, out_in ? s.width : s.vocabulary, s.chunk)});
    }
    return s.logits_bytes + scratch;
  }

  void Run(const OpArgs& args) const override {
    const Sizes s = SizesOf(args.in);
    for (size_t row = 0; row < s.rows; row += s.chunk) {
      RunChunk(args, s, row, std::min(s.chunk, s.rows - row));
    }
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    const TensorId x = node.inputs[0];
    const auto [dx, residual] = builder.GradTarget(x);
    LW_CHECK(!residual, "head_cross_entropy: its input has another reader");
    builder.ReplaceNode(
        std::make_shared<HeadCrossEntropyOp>(layout_, smoothing_, true), node.inputs,
        {node.outputs[0], node.outputs[1], dx, builder.ParameterGrad(node.inputs[1])});
  }

  OpCost Cost(std::span<const Tensor> in, std::span<const Tensor> out) const override {
    OpCost cost = Op::Cost(in, out);
    const Sizes s = SizesOf(in);
    cost.flops = 2.0 * static_cast<double>(s.rows) * static_cast<double>(s.width) *
                 static_cast<double>(s.vocabulary) * (gradients_ ? 3 : 1);
    return cost;
  }

 private:
  Sizes SizesOf(std::span<const Tensor> in) const {
    Sizes s{};
    s.rows = in[0].rows;
    s.width = in[0].cols;
    s.vocabulary = layout_ == WeightLayout::kOutIn ? in[1].rows : in[1].cols;
    s.chunk = HeadChunkRows(s.rows, s.width, s.vocabulary);
    s.logits_bytes = (s.chunk * s.vocabulary * sizeof(float) + 63) / 64 * 64;
    return s;
  }

  void RunChunk(const OpArgs& args, const Sizes& s, size_t row, size_t count) const {
    const Mat<const float> x = Mat<const float>(args.in[0].F32()).Rows(row, count);
    const Tensor& w = args.in[1];
    const bool out_in = layout_ == WeightLayout::kOutIn;
    const Mat<float> logits{reinterpret_cast<float*>(args.workspace.data()), count, s.vocabulary,
                            s.vocabulary};
    const std::span<std::byte> scratch = args.workspace.subspan(s.logits_bytes);
    runtime::Matmul(args.parallel,
                    {.a = AsOperand(x),
                     .b = AsWeights(w, out_in),
                     .c = logits.data,
                     .c_stride = logits.stride,
                     .m = count,
                     .n = s.vocabulary,
                     .k = s.width,
                     .bf16 = IsBf16(w)},
                    scratch);
    Losses(args, logits, row);
    if (!gradients_) return;
    const Mat<float> dx = args.out[2].F32().Rows(row, count);
    runtime::Matmul(args.parallel,
                    {.a = AsOperand(logits),
                     .b = AsWeights(w, !out_in),
                     .c = dx.data,
                     .c_stride = dx.stride,
                     .m = count,
                     .n = s.width,
                     .k = s.vocabulary,
                     .bf16 = IsBf16(w)},
                    scratch);
    if (!args.out[3]) return;
    const Mat<float> dw = args.out[3].F32();
    runtime::Matmul(args.parallel,
                    {.a = out_in ? AsTransposed(logits) : AsTransposed(x),
                     .b = {.strided = out_in ? AsOperand(x) : AsOperand(logits)},
                     .c = dw.data,
                     .c_stride = dw.stride,
                     .m = dw.rows,
                     .n = dw.cols,
                     .k = count,
                     .epilogue = MatmulEpilogue::kAccumulate,
                     .bf16 = IsBf16(w)},
                    scratch);
  }

  // Losses of the chunk's rows; logits become their gradient when gradients are wanted.
  void Losses(const OpArgs& args, Mat<float> logits, size_t first_row) const {
    const auto part = [](const Tensor& t, size_t row, size_t count) {
      return t ? t.Flat().subspan(row, count) : std::span<float>();
    };
    const Pieces blocks = CutRows(logits.rows, logits.cols);
    args.parallel.For(blocks.count, [&](size_t block, size_t) {
      const size_t count = blocks.Size(block);
      const size_t row = first_row + blocks.Begin(block);
      const std::span<const int32_t> targets = args.in[2].Ints().subspan(row, count);
      const Mat<float> rows = logits.Rows(blocks.Begin(block), count);
      const std::span<float> nll = part(args.out[0], row, count);
      const std::span<float> loss = part(args.out[1], row, count);
      if (gradients_) {
        kernels::CrossEntropyForwardBackward(rows, targets, smoothing_, *args.in[3].F32().data,
                                             loss, nll);
      } else {
        kernels::CrossEntropyForward(rows, targets, smoothing_, loss, nll);
      }
    });
  }

  WeightLayout layout_;
  float smoothing_;
  bool gradients_;
};

}  // namespace

size_t HeadChunkRows(size_t rows, size_t width, size_t vocabulary) {
  constexpr size_t kElements = size_t{1} << 20;
  const size_t least = std::clamp<size_t>(2 * width, 128, 512);
  return std::min(rows, std::clamp<size_t>(kElements / vocabulary, least, 4096));
}

void HeadCrossEntropy(Graph& graph, const HeadCrossEntropyArgs& args) {
  const TensorInfo& x = graph.Info(args.x);
  const TensorInfo& w = graph.Info(args.w);
  const size_t in = args.layout == WeightLayout::kOutIn ? w.cols : w.rows;
  LW_CHECK(x.cols == in, "head_cross_entropy: x has ", x.cols, " columns, ", w.name, " is [",
           w.rows, ", ", w.cols, "]");
  const TensorInfo& targets = graph.Info(args.targets);
  LW_CHECK(targets.rows == x.rows && targets.cols == 1 && targets.dtype == DType::kInt32,
           "head_cross_entropy: ", targets.rows, " targets for ", x.rows, " rows");
  const auto check = [&](TensorId id, size_t rows) {
    if (!id) return;
    const TensorInfo& info = graph.Info(id);
    LW_CHECK(info.rows == rows && info.cols == 1 && info.dtype == DType::kFloat32,
             "head_cross_entropy: ", info.name, " is [", info.rows, ", ", info.cols,
             "], wanted float32 [", rows, ", 1]");
  };
  check(args.scale, 1);
  check(args.nll, x.rows);
  check(args.loss, x.rows);
  graph.CheckType("head_cross_entropy", args.x);
  LW_CHECK(args.smoothing >= 0 && args.smoothing < 1, "head_cross_entropy: label smoothing ",
           args.smoothing, " is not in [0, 1)");
  graph.Add(std::make_shared<HeadCrossEntropyOp>(args.layout, args.smoothing, false),
            {args.x, args.w, args.targets, args.scale}, {args.nll, args.loss});
}

}  // namespace lanewise::runtime
