#include "runtime/ops/rope.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kernels/rope.h"
#include "runtime/check.h"
#include "runtime/partition.h"

namespace lanewise::runtime {

namespace {

// in: starts, may be unbound. out: table.
class RopeTableOp final : public Op {
 public:
  RopeTableOp(size_t sequences, double theta) : sequences_(sequences), theta_(theta) {}
  std::string_view name() const override { return "rope table"; }
  bool OptionalInput(size_t) const override { return true; }

  void Run(const OpArgs& args) const override {
    const Mat<float> table = args.out[0].F32();
    const size_t steps = table.rows / sequences_;
    for (size_t s = 0; s < sequences_; ++s) {
      const int32_t start = args.in[0] ? args.in[0].Ints()[s] : 0;
      LW_CHECK(start >= 0, "rope: sequence ", s, " starts at position ", start);
      kernels::RopeTable(theta_, static_cast<size_t>(start), table.Rows(s * steps, steps));
    }
  }
  // A function of positions alone.
  void Differentiate(GradBuilder&, const Node&) const override {}

 private:
  size_t sequences_;
  double theta_;
};

// in: x (or dy), table. out: y (or dx).
class RopeOp final : public Op {
 public:
  RopeOp(size_t rotated, std::vector<int32_t> table_rows, bool backward)
      : rotated_(rotated), table_rows_(std::move(table_rows)), backward_(backward) {}
  std::string_view name() const override { return backward_ ? "rope backward" : "rope"; }
  int InPlaceInput(size_t) const override { return 0; }

  void Run(const OpArgs& args) const override {
    const Mat<const float> x = args.in[0].F32();
    const Mat<const float> table = args.in[1].F32();
    const Mat<float> y = args.out[0].F32();
    const Pieces blocks = CutRows(x.rows, x.cols);
    args.parallel.For(blocks.count, [&](size_t block, size_t) {
      const size_t row = blocks.Begin(block);
      const size_t count = blocks.Size(block);
      if (x.data != y.data) {
        for (size_t r = row; r < row + count; ++r) std::copy_n(x.Row(r), x.cols, y.Row(r));
      }
      const auto rows = std::span<const int32_t>(table_rows_).subspan(row, count);
      const Mat<float> heads = y.Rows(row, count).Cols(0, rotated_);
      if (backward_) {
        kernels::RopeBackward(table, 0, rows, heads);
      } else {
        kernels::RopeForward(table, 0, rows, heads);
      }
    });
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    const TensorId dy = builder.Grad(node.outputs[0]);
    if (!dy) return;
    const TensorId dx = builder.GradOverwrite(node.inputs[0]);
    builder.Add(std::make_shared<RopeOp>(rotated_, table_rows_, true), {dy, node.inputs[1]}, {dx});
    builder.FinishGrad(node.inputs[0], dx);
  }

 private:
  size_t rotated_;  // columns
  std::vector<int32_t> table_rows_;
  bool backward_;
};

}  // namespace

TensorId RopeTable(Graph& graph, size_t sequences, size_t steps, size_t head_dim, double theta,
                   TensorId starts) {
  LW_CHECK(head_dim > 0 && head_dim % 2 == 0, "rope: heads of ", head_dim,
           " columns, which is not even");
  LW_CHECK(theta > 0, "rope: theta is ", theta);
  if (!starts) {
    std::vector<float> values(steps * head_dim);
    kernels::RopeTable(theta, 0, {values.data(), steps, head_dim, head_dim});
    return graph.Constant("rope table", steps, head_dim, std::move(values));
  }
  const TensorInfo info = graph.Info(starts);
  LW_CHECK(info.dtype == DType::kInt32 && info.rows == sequences && info.cols == 1,
           "rope: starts are [", info.rows, ", ", info.cols, "], not int32 [", sequences, ", 1]");
  const TensorId table = graph.Activation("rope table", sequences * steps, head_dim);
  graph.Add(std::make_shared<RopeTableOp>(sequences, theta), {starts}, {table});
  return table;
}

TensorId Rope(Graph& graph, TensorId qkv, TensorId table, size_t heads) {
  const TensorInfo info = graph.Info(qkv);
  const TensorInfo angles = graph.Info(table);
  graph.CheckType("rope", qkv);
  LW_CHECK(heads * angles.cols <= info.cols, "rope: ", heads, " heads of ", angles.cols,
           " columns, x has ", info.cols);
  LW_CHECK(info.rows % angles.rows == 0, "rope: ", info.rows, " rows, the table has ", angles.rows);
  std::vector<int32_t> rows(info.rows);
  for (size_t r = 0; r < info.rows; ++r) rows[r] = static_cast<int32_t>(r % angles.rows);
  const TensorId y = graph.Activation("rope", info.rows, info.cols);
  graph.Add(std::make_shared<RopeOp>(heads * angles.cols, std::move(rows), false), {qkv, table},
            {y});
  return y;
}

}  // namespace lanewise::runtime
