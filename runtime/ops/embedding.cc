#include "runtime/ops/embedding.h"

#include "kernels/embedding.h"
#include "runtime/check.h"
#include "runtime/partition.h"

namespace lanewise::runtime {

namespace {

// in: ids, dy. out: d table (added to).
class EmbeddingBackwardOp final : public Op {
 public:
  std::string_view name() const override { return "embedding backward"; }

  void Run(const OpArgs& args) const override {
    const Mat<const float> dy = args.in[1].F32();
    const Mat<float> dtable = args.out[0].F32();
    constexpr size_t kColumns = 64;
    args.parallel.For((dy.cols + kColumns - 1) / kColumns, [&](size_t block, size_t) {
      const size_t col = block * kColumns;
      const size_t count = std::min(kColumns, dy.cols - col);
      kernels::EmbeddingBackward(args.in[0].Ints(), dy.Cols(col, count), dtable.Cols(col, count));
    });
  }
};

// in: table, ids. out: y.
class EmbeddingOp final : public Op {
 public:
  std::string_view name() const override { return "embedding"; }

  void Run(const OpArgs& args) const override {
    const Tensor& table = args.in[0];
    const std::span<const int32_t> ids = args.in[1].Ints();
    const Mat<float> y = args.out[0].F32();
    const Pieces blocks = CutRows(y.rows, y.cols);
    args.parallel.For(blocks.count, [&](size_t block, size_t) {
      const size_t row = blocks.Begin(block);
      const size_t count = blocks.Size(block);
      const std::span<const int32_t> wanted = ids.subspan(row, count);
      if (table.dtype == DType::kBFloat16) {
        kernels::EmbeddingForward(table.BF16(), wanted, y.Rows(row, count));
      } else {
        kernels::EmbeddingForward(Mat<const float>(table.F32()), wanted, y.Rows(row, count));
      }
    });
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    const TensorId dy = builder.Grad(node.outputs[0]);
    const TensorId dtable = builder.ParameterGrad(node.inputs[0]);
    if (!dy || !dtable) return;
    builder.Add(std::make_shared<EmbeddingBackwardOp>(), {node.inputs[1], dy}, {dtable});
  }
};

}  // namespace

TensorId Embedding(Graph& graph, TensorId table, TensorId ids) {
  const TensorInfo info = graph.Info(table);
  const TensorInfo id_info = graph.Info(ids);
  LW_CHECK(id_info.cols == 1 && id_info.dtype == DType::kInt32, "embedding: ids are [",
           id_info.rows, ", ", id_info.cols, "], int32 [R, 1] wanted");
  const TensorId y = graph.Activation("embedding", id_info.rows, info.cols);
  graph.Add(std::make_shared<EmbeddingOp>(), {table, ids}, {y});
  return y;
}

}  // namespace lanewise::runtime
