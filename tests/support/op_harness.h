// Puts operations between an external input and a weighted sum, so that a test sees their gradient.
#ifndef LANEWISE_TESTS_SUPPORT_OP_HARNESS_H_
#define LANEWISE_TESTS_SUPPORT_OP_HARNESS_H_

#include <algorithm>
#include <memory>
#include <string_view>

#include "runtime/graph.h"

namespace lanewise::testing {

// Copies in[0] to out[0]. As the source of a graph: its gradient goes to an external tensor.
class SourceOp final : public runtime::Op {
 public:
  explicit SourceOp(runtime::TensorId gradient = {}) : gradient_(gradient) {}
  std::string_view name() const override { return "source"; }
  void Run(const runtime::OpArgs& args) const override {
    const kernels::Mat<const float> x = args.in[0].F32();
    const kernels::Mat<float> y = args.out[0].F32();
    for (size_t r = 0; r < x.rows; ++r) std::copy_n(x.Row(r), x.cols, y.Row(r));
  }
  void Differentiate(runtime::GradBuilder& builder, const runtime::Node& node) const override {
    const runtime::TensorId dy = builder.Grad(node.outputs[0]);
    builder.Add(std::make_shared<SourceOp>(), {dy}, {gradient_});
  }

 private:
  runtime::TensorId gradient_;
};

// Copies y out; the gradient of y is in[1].
class SinkOp final : public runtime::Op {
 public:
  std::string_view name() const override { return "sink"; }
  void Run(const runtime::OpArgs& args) const override { SourceOp().Run(args); }
  void Differentiate(runtime::GradBuilder& builder, const runtime::Node& node) const override {
    const runtime::TensorId dy = builder.GradOverwrite(node.inputs[0]);
    builder.Add(std::make_shared<SourceOp>(), {node.inputs[1]}, {dy});
    builder.FinishGrad(node.inputs[0], dy);
  }
};

// An activation with the values of an external tensor of the same shape; after Differentiate,
// `gradient` (external too) receives the gradient.
inline runtime::TensorId Source(runtime::Graph& graph, runtime::TensorId values,
                                runtime::TensorId gradient) {
  const runtime::TensorInfo info = graph.Info(values);
  const runtime::TensorId x = graph.Activation("source", info.rows, info.cols);
  graph.Add(std::make_shared<SourceOp>(gradient), {values}, {x});
  return x;
}

// The graph's result: y goes to the external `result`, and its gradient is the external `dy`.
inline void Sink(runtime::Graph& graph, runtime::TensorId y, runtime::TensorId dy,
                 runtime::TensorId result) {
  graph.Add(std::make_shared<SinkOp>(), {y, dy}, {result});
}

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_OP_HARNESS_H_
