// Gradient rules of the graph operations, and how gradients of tensors with several readers come
// together.
#include <doctest/doctest.h>

#include <cstdint>
#include <memory>

#include "runtime/check.h"
#include "runtime/ops/add.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/dropout.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/head_cross_entropy.h"
#include "runtime/ops/layer_norm.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/rms_norm.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/swiglu.h"
#include "tests/support/op_check.h"

namespace lanewise::runtime {
namespace {

using testing::OpCheck;

// Parameters are inputs of the graph; operations want activations in front of them.
TensorId Input(OpCheck& check, const char* name, size_t rows, size_t cols) {
  const TensorId x = check.Parameter(name, rows, cols);
  const TensorId one = check.graph.Activation("zero", rows, cols);
  const TensorId zero = check.graph.Constant("zeros", rows, cols, std::vector<float>(rows * cols));
  CopyTensor(check.graph, zero, one);
  // A product with the identity makes an activation whose gradient reaches the parameter.
  std::vector<float> identity(rows * rows);
  for (size_t i = 0; i < rows; ++i) identity[i * rows + i] = 1;
  const TensorId eye = check.graph.Activation("eye", rows, rows);
  CopyTensor(check.graph, check.graph.Constant("identity", rows, rows, identity), eye);
  return Matmul(check.graph, eye, x, WeightLayout::kInOut);
}

TEST_CASE("layer_norm") {
  OpCheck check;
  const TensorId x = Input(check, "x", 7, 19);
  check.Loss(
      LayerNorm(check.graph, x, check.Parameter("w", 1, 19), check.Parameter("b", 1, 19), 1e-6F));
  check.Check(2e-3);
}

TEST_CASE("rms_norm") {
  OpCheck check;
  const TensorId x = Input(check, "x", 7, 19);
  check.Loss(RmsNorm(check.graph, x, check.Parameter("w", 1, 19), 1e-5F));
  check.Check(2e-3);
}

TEST_CASE("matmul in both layouts, with a residual") {
  OpCheck check;
  const TensorId x = Input(check, "x", 9, 12);
  const TensorId y = Matmul(check.graph, x, check.Parameter("w", 12, 21), WeightLayout::kInOut);
  const TensorId z = Matmul(check.graph, y, check.Parameter("v", 12, 21), WeightLayout::kOutIn, x);
  check.Loss(z);
  check.Check(2e-3);
}

TEST_CASE("softmax and swiglu over column views of one tensor") {
  OpCheck check;
  const TensorId x = Input(check, "x", 6, 20);
  const TensorId low = Matmul(check.graph, x, check.Parameter("w", 20, 14), WeightLayout::kInOut);
  check.Loss(Softmax(check.graph, check.graph.View(low, 0, 6), 2));
  check.Loss(Swiglu(check.graph, check.graph.View(low, 6, 8)));
  check.Check(3e-3);
}

TEST_CASE("a tensor written through views, read whole or through others") {
  for (const bool whole : {true, false}) {
    OpCheck check;
    Graph& g = check.graph;
    const TensorId x = Input(check, "x", 6, 5);
    const TensorId base = g.Activation("base", 6, 8);
    MatmulTo(g, x, check.Parameter("w", 5, 3), WeightLayout::kInOut, g.View(base, 0, 3));
    CopyTensor(g, x, g.View(base, 3, 5));
    if (whole) {
      check.Loss(RmsNorm(g, base, check.Parameter("s", 1, 8), 1e-5F));
    } else {
      check.Loss(Swiglu(g, g.View(base, 0, 2)));
      check.Loss(Swiglu(g, g.View(base, 2, 6)));
    }
    check.Check(3e-3);
  }
}

TEST_CASE("columns that several views have get the sum of their gradients, the whole's too") {
  OpCheck check;
  Graph& g = check.graph;
  const TensorId x = Input(check, "x", 6, 5);
  const TensorId y = Matmul(g, x, check.Parameter("w", 5, 8), WeightLayout::kInOut);
  check.Loss(Softmax(g, y));
  check.Loss(Swiglu(g, g.View(y, 0, 8)));
  check.Loss(Softmax(g, g.View(y, 0, 8), 2));
  check.Loss(Swiglu(g, g.View(y, 0, 4)));
  check.Loss(Swiglu(g, g.View(y, 4, 4)));
  check.Check(3e-3);
}

TEST_CASE("gradients that views cannot bring together are refused") {
  OpCheck check;
  const TensorId x = Input(check, "x", 6, 5);
  const TensorId w = check.Parameter("w", 5, 8);
  const auto differentiate = [&](const auto& read) {
    Graph g = check.graph;  // a copy
    const TensorId y = Matmul(g, x, w, WeightLayout::kInOut);
    const auto loss = [&](TensorId t) {
      const TensorInfo info = g.Info(t);
      g.Add(std::make_shared<testing::WeighOp>(false), {t},
            {g.External("weighed", info.rows, info.cols)});
    };
    read(g, y, loss);
    g.Differentiate();
  };
  constexpr const char* kFive =
      "w: columns [0, 8) have a gradient in 5 only: all that is read through views has to reach "
      "the loss, and no two views may overlap in part";
  constexpr const char* kWhole =
      "w: it is read whole after a view of it: read the whole before its views";
  CHECK_THROWS_WITH_AS(differentiate([](Graph& g, TensorId y, const auto& loss) {
                         loss(g.View(y, 0, 5));  // no other reader
                       }),
                       kFive, CheckError);
  CHECK_THROWS_WITH_AS(differentiate([](Graph& g, TensorId y, const auto& loss) {
                         loss(g.View(y, 0, 5));
                         Softmax(g, g.View(y, 5, 3));  // never reaches the loss
                       }),
                       kFive, CheckError);
  CHECK_THROWS_AS(differentiate([](Graph& g, TensorId y, const auto& loss) {
                    loss(g.View(y, 0, 5));
                    loss(g.View(y, 3, 5));  // overlaps
                  }),
                  CheckError);
  CHECK_THROWS_WITH_AS(differentiate([](Graph& g, TensorId y, const auto& loss) {
                         loss(g.View(y, 0, 8));
                         loss(y);
                       }),
                       kWhole, CheckError);
}

TEST_CASE("a tensor with three readers gets the sum of their gradients") {
  OpCheck check;
  const TensorId x = Input(check, "x", 5, 8);
  const TensorId n =
      LayerNorm(check.graph, x, check.Parameter("w", 1, 8), check.Parameter("b", 1, 8), 1e-6F);
  const TensorId a = Matmul(check.graph, n, check.Parameter("p", 8, 8), WeightLayout::kInOut, x);
  const TensorId s = Softmax(check.graph, n);
  check.Loss(Add(check.graph, Add(check.graph, a, s), n));
  check.Check(3e-3);
}

TEST_CASE("dropout has the same mask forward, backward, and in any cut of the rows") {
  OpCheck check;
  const TensorId x = Input(check, "x", 12, 10);
  const TensorId key = check.graph.External("key", 4, 1, DType::kInt32);
  const TensorId y = Dropout(check.graph, x, 0.4F, key, 3, x);
  check.Loss(y);
  const std::vector<int32_t> words{1, 2, 3, 0};
  check.Check(2e-3, {}, [&](Executor& e) { e.Bind(key, words.data()); });
}

TEST_CASE("head and cross-entropy: gradients by differences, ignored targets, smoothing") {
  for (const WeightLayout layout : {WeightLayout::kInOut, WeightLayout::kOutIn}) {
    for (const float smoothing : {0.0F, 0.1F}) {
      OpCheck check;
      const size_t rows = 11, width = 6, vocabulary = 13;
      const TensorId x = Input(check, "x", rows, width);
      const TensorId w = layout == WeightLayout::kInOut ? check.Parameter("w", width, vocabulary)
                                                        : check.Parameter("w", vocabulary, width);
      const TensorId targets = check.graph.External("targets", rows, 1, DType::kInt32);
      const TensorId scale = check.graph.External("scale", 1, 1);
      const TensorId nll = check.graph.External("nll", rows, 1);
      const TensorId loss = check.graph.External("loss", rows, 1);
      HeadCrossEntropy(check.graph, {.x = x,
                                     .w = w,
                                     .layout = layout,
                                     .targets = targets,
                                     .scale = scale,
                                     .nll = nll,
                                     .loss = loss,
                                     .smoothing = smoothing});
      Graph forward = check.graph;
      check.graph.Differentiate();
      std::vector<int32_t> ids(rows);
      for (size_t i = 0; i < rows; ++i)
        ids[i] = i == 4 ? -1 : static_cast<int32_t>(i * 5 % vocabulary);
      std::vector<float> values(2048), gradients(2048), nlls(rows), losses(rows);
      std::mt19937 random(3);
      for (float& v : values) v = std::normal_distribution<float>()(random);
      const float one = 1;
      const auto run = [&](const Graph& g) {
        auto graph = std::make_shared<const Graph>(g);
        Executor executor(graph, std::make_shared<const Plan>(MakePlan(g, 1)));
        executor.BindParameters(values.data(), gradients.data());
        executor.Bind(targets, ids.data());
        executor.Bind(scale, &one);
        executor.Bind(nll, nlls.data());
        executor.Bind(loss, losses.data());
        executor.Run({});
        double sum = 0;
        for (const float l : losses) sum += static_cast<double>(l);
        return sum;
      };
      run(check.graph);
      CHECK(losses[4] == 0.0F);
      if (smoothing == 0) CHECK(losses[3] == nlls[3]);
      const std::vector<float> analytic = gradients;
      for (size_t i = 0; i < rows * width + width * vocabulary; i += 3) {
        const float saved = values[i];
        values[i] = saved + 1e-2F;
        const double up = run(forward);
        values[i] = saved - 1e-2F;
        const double down = run(forward);
        values[i] = saved;
        CHECK((up - down) / 2e-2 ==
              doctest::Approx(static_cast<double>(analytic[i])).epsilon(5e-3).scale(1.0));
      }
    }
  }
}

TEST_CASE("shapes that do not fit are refused with both sizes") {
  Graph g;
  const TensorId x = g.Activation("x", 4, 8);
  const TensorId w = g.Parameter("w", 0, 1, 9, 9);
  CHECK_THROWS_WITH_AS(RmsNorm(g, x, w, 1e-5F), "rms_norm: w is [1, 9], x has 8 columns",
                       CheckError);
  CHECK_THROWS_AS(LayerNorm(g, x, w, w, 1e-5F), CheckError);
  CHECK_THROWS_AS(Matmul(g, x, w, WeightLayout::kInOut), CheckError);
  const TensorId v = g.Parameter("v", 0, 6, 8, 8), y = g.External("y", 4, 7);
  CHECK_THROWS_WITH_AS(MatmulTo(g, x, v, WeightLayout::kOutIn, y),
                       "matmul: y is [4, 7], the product [4, 6]", CheckError);
  CHECK_THROWS_AS(Softmax(g, x, 3), CheckError);
  CHECK_THROWS_AS(g.View(x, 4, 5), CheckError);
  CHECK_THROWS_WITH_AS(g.View(x, SIZE_MAX, 2), doctest::Contains("x: view of 2 columns from"),
                       CheckError);
  CHECK_THROWS_AS(Dropout(g, x, 1.0F, w, 0), CheckError);
  const TensorId key = g.External("key", 4, 1);
  CHECK_THROWS_WITH_AS(Dropout(g, x, 0.5F, key, 0), "dropout: key is not int32", CheckError);
}

TEST_CASE("tensors of another type are refused") {
  Graph g;
  const TensorId x = g.Activation("x", 4, 12), w = g.Parameter("w", 0, 12, 12, 12);
  const TensorId ids = g.Activation("ids", 4, 12, DType::kInt32);
  const TensorId half = g.Activation("half", 4, 12, DType::kBFloat16);
  CHECK_THROWS_WITH_AS(Matmul(g, ids, w, WeightLayout::kInOut), "matmul: ids is not float32",
                       CheckError);
  CHECK_THROWS_WITH_AS(Matmul(g, x, w, WeightLayout::kInOut, ids), "matmul: ids is not float32",
                       CheckError);
  CHECK_THROWS_WITH_AS(MatmulTo(g, x, w, WeightLayout::kInOut, half), "matmul: half is not float32",
                       CheckError);
  CHECK_THROWS_WITH_AS(Attention(g, ids, {1, 2, 1}), "attention: ids is not float32", CheckError);
  CHECK_THROWS_WITH_AS(Softmax(g, ids), "softmax: ids is not float32", CheckError);
  CHECK_THROWS_WITH_AS(CopyTensor(g, x, half), "copy: half is not float32", CheckError);
  CHECK_THROWS_WITH_AS(Add(g, ids, ids), "add: ids is not float32", CheckError);
}

TEST_CASE("head and cross-entropy: what does not fit is refused") {
  Graph g;
  const TensorId x = g.Activation("x", 6, 5), w = g.Parameter("w", 0, 5, 7, 7);
  const TensorId targets = g.External("targets", 6, 1, DType::kInt32);
  const TensorId scale = g.External("scale", 1, 1), one = g.External("one", 1, 1);
  const HeadCrossEntropyArgs good = {
      .x = x, .w = w, .targets = targets, .scale = scale, .nll = {}, .loss = {}};
  const auto refused = [&](const auto& change, const char* message) {
    HeadCrossEntropyArgs args = good;
    change(args);
    CHECK_THROWS_WITH_AS(HeadCrossEntropy(g, args), message, CheckError);
  };
  refused([&](auto& a) { a.nll = one; },
          "head_cross_entropy: one is [1, 1], wanted float32 [6, 1]");
  refused([&](auto& a) { a.loss = one; },
          "head_cross_entropy: one is [1, 1], wanted float32 [6, 1]");
  refused([&](auto& a) { a.scale = targets; },
          "head_cross_entropy: targets is [6, 1], wanted float32 [1, 1]");
}

}  // namespace
}  // namespace lanewise::runtime
