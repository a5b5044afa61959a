#include "runtime/ops/select_last.h"

#include <cstring>

#include "runtime/check.h"

namespace lanewise::runtime {

namespace {

// in: x, lengths or none. out: y.
class SelectLastOp final : public Op {
 public:
  std::string_view name() const override { return "select_last"; }
  bool OptionalInput(size_t input) const override { return input == 1; }

  void Run(const OpArgs& args) const override {
    const Mat<const float> x = args.in[0].F32();
    const Mat<float> y = args.out[0].F32();
    const size_t steps = x.rows / y.rows;
    for (size_t b = 0; b < y.rows; ++b) {
      const size_t length = args.in[1] ? static_cast<size_t>(args.in[1].Ints()[b]) : steps;
      LW_CHECK(length >= 1 && length <= steps, "select_last: length ", length, " of ", steps);
      std::memcpy(y.Row(b), x.Row(b * steps + length - 1), y.cols * sizeof(float));
    }
  }
};

}  // namespace

TensorId SelectLast(Graph& graph, TensorId x, TensorId lengths, size_t sequences) {
  const TensorInfo info = graph.Info(x);
  LW_CHECK(sequences > 0 && info.rows % sequences == 0, "select_last: ", info.rows,
           " rows are not ", sequences, " equal sequences");
  const TensorId y = graph.Activation("last", sequences, info.cols);
  graph.Add(std::make_shared<SelectLastOp>(), {x, lengths}, {y});
  return y;
}

}  // namespace lanewise::runtime
