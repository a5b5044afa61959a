#include "runtime/ops/dropout.h"

#include "kernels/dropout.h"
#include "runtime/check.h"
#include "runtime/ops/add.h"
#include "runtime/partition.h"

namespace lanewise::runtime {

namespace {

// in: x (or dy), key. out: y (or dx).
class DropoutOp final : public Op {
 public:
  DropoutOp(float p, uint32_t stream, bool backward)
      : p_(p), stream_(stream), backward_(backward) {}
  std::string_view name() const override { return backward_ ? "dropout backward" : "dropout"; }
  int InPlaceInput(size_t) const override { return 0; }

  void Run(const OpArgs& args) const override {
    const Mat<const float> x = args.in[0].F32();
    const Mat<float> y = args.out[0].F32();
    const std::span<const int32_t> key = args.in[1].Ints();
    const auto word = [&](size_t i) { return static_cast<uint32_t>(key[i]); };
    const kernels::RandomKey random{
        .seed = uint64_t{word(1)} << 32 | word(0), .stream = stream_, .step = word(2)};
    const uint64_t first_row = word(3);
    const Pieces blocks = CutRows(x.rows, x.cols);
    args.parallel.For(blocks.count, [&](size_t block, size_t) {
      const size_t row = blocks.Begin(block);
      const size_t count = blocks.Size(block);
      if (backward_) {
        kernels::DropoutBackward(x.Rows(row, count), p_, random, first_row + row,
                                 y.Rows(row, count));
      } else {
        kernels::DropoutForward(x.Rows(row, count), p_, random, first_row + row,
                                y.Rows(row, count));
      }
    });
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    const TensorId dy = builder.Grad(node.outputs[0]);
    if (!dy) return;
    const TensorId dx = builder.GradOverwrite(node.inputs[0]);
    builder.Add(std::make_shared<DropoutOp>(p_, stream_, true), {dy, node.inputs[1]}, {dx});
    builder.FinishGrad(node.inputs[0], dx);
  }

 private:
  float p_;
  uint32_t stream_;
  bool backward_;
};

}  // namespace

TensorId Dropout(Graph& graph, TensorId x, float p, TensorId key, uint32_t stream,
                 TensorId residual) {
  LW_CHECK(p >= 0 && p < 1, "dropout: p is ", p, ", not in [0, 1)");
  const TensorInfo info = graph.Info(x);
  const TensorInfo& words = graph.Info(key);
  LW_CHECK(words.rows == 4 && words.cols == 1, "dropout: the key is [", words.rows, ", ",
           words.cols, "], not [4, 1]");
  graph.CheckType("dropout", key, DType::kInt32);
  graph.CheckType("dropout", x);
  const TensorId y = graph.Activation("dropout", info.rows, info.cols);
  graph.Add(std::make_shared<DropoutOp>(p, stream, false), {x, key}, {y});
  return residual ? Add(graph, y, residual) : y;
}

}  // namespace lanewise::runtime
