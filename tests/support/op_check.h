// Checks a differentiable graph against central differences: the loss is a random weighting of an
// output.
#ifndef LANEWISE_TESTS_SUPPORT_OP_CHECK_H_
#define LANEWISE_TESTS_SUPPORT_OP_CHECK_H_

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "runtime/executor.h"
#include "runtime/graph.h"
#include "runtime/plan.h"

namespace lanewise::testing {

// The end of a test graph: weighs its input with fixed numbers; the sum is the loss.
class WeighOp final : public runtime::Op {
 public:
  explicit WeighOp(bool gradient) : gradient_(gradient) {}
  std::string_view name() const override { return "weigh"; }
  static float Weight(size_t i) { return std::sin(static_cast<float>(i) * 1.7F + 0.3F); }

  void Run(const runtime::OpArgs& args) const override {
    const auto x = args.in[0].F32();
    const auto out = args.out[0].F32();
    for (size_t r = 0; r < x.rows; ++r) {
      for (size_t c = 0; c < x.cols; ++c) {
        const float w = Weight(r * x.cols + c);
        out.Row(r)[c] = gradient_ ? w : w * x.Row(r)[c];
      }
    }
  }
  void Differentiate(runtime::GradBuilder& builder, const runtime::Node& node) const override {
    const runtime::TensorId dx = builder.GradOverwrite(node.inputs[0]);
    builder.Add(std::make_shared<WeighOp>(true), {node.inputs[0]}, {dx});
    builder.FinishGrad(node.inputs[0], dx);
  }

 private:
  bool gradient_;
};

// One graph with parameters only (inputs are parameters too, so that their gradients can be read).
class OpCheck {
 public:
  runtime::Graph graph;

  runtime::TensorId Parameter(const std::string& name, size_t rows, size_t cols,
                              float scale = 1.0F) {
    const size_t offset = values_.size();
    std::normal_distribution<float> normal(0.0F, scale);
    for (size_t i = 0; i < rows * cols; ++i) values_.push_back(normal(random_));
    while (values_.size() % 16 != 0) values_.push_back(0.0F);
    return graph.Parameter(name, offset, rows, cols, cols);
  }

  void Loss(runtime::TensorId y) {
    const runtime::TensorInfo info = graph.Info(y);  // a copy: External moves the list
    outputs_.push_back(graph.External("weighed", info.rows, info.cols));
    graph.Add(std::make_shared<WeighOp>(false), {y}, {outputs_.back()});
    results_.emplace_back(info.rows * info.cols);
  }

  // Differentiates and compares every parameter's gradient with differences. `bind` binds further
  // externals.
  void Check(double tolerance, const runtime::Parallel& parallel = {},
             const std::function<void(runtime::Executor&)>& bind = {}) {
    auto forward = std::make_shared<runtime::Graph>(graph);
    graph.Differentiate();
    auto backward = std::make_shared<runtime::Graph>(graph);
    const auto plan = [&](const auto& g) {
      return std::make_shared<const runtime::Plan>(runtime::MakePlan(*g, parallel.max_workers()));
    };
    gradients.assign(values_.size(), 0.0F);
    runtime::Executor both(backward, plan(backward));
    Run(both, parallel, bind);
    runtime::Executor value(forward, plan(forward));
    float largest = 0;
    for (const float g : gradients) largest = std::max(largest, std::fabs(g));
    const auto norm = static_cast<double>(largest);
    for (size_t i = 0; i < values_.size(); i += 1 + values_.size() / 200) {
      const float saved = values_[i];
      const float h = 1e-2F;
      values_[i] = saved + h;
      const double up = Run(value, parallel, bind);
      const float high = values_[i];
      values_[i] = saved - h;
      const double down = Run(value, parallel, bind);
      const double width = static_cast<double>(high) - static_cast<double>(values_[i]);
      values_[i] = saved;
      CAPTURE(i);
      CHECK((up - down) / width ==
            doctest::Approx(static_cast<double>(gradients[i])).epsilon(tolerance).scale(norm));
    }
  }

  std::vector<float> gradients;

 private:
  double Run(runtime::Executor& executor, const runtime::Parallel& parallel,
             const std::function<void(runtime::Executor&)>& bind) {
    executor.BindParameters(values_.data(), gradients.data());
    for (size_t i = 0; i < outputs_.size(); ++i) executor.Bind(outputs_[i], results_[i].data());
    if (bind) bind(executor);
    executor.Run(parallel);
    double sum = 0;
    for (const auto& result : results_) {
      for (const float x : result) sum += static_cast<double>(x);
    }
    return sum;
  }

  std::mt19937 random_{7};
  std::vector<float> values_;
  std::vector<runtime::TensorId> outputs_;
  std::vector<std::vector<float>> results_;
};

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_OP_CHECK_H_
