#include "kernels/softmax.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/reference/softmax.h"
#include "tests/support/buffers.h"
#include "tests/support/compare.h"
#include "tests/support/gradient.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using testing::AsMat;
using testing::GuardedMatrix;
using testing::WorstError;

void Check(size_t rows, size_t groups, size_t size, size_t gap, size_t misalign, float spread) {
  CAPTURE(rows);
  CAPTURE(groups);
  CAPTURE(size);
  std::mt19937 rng(static_cast<unsigned>(1000 * groups + size));
  const size_t cols = groups * size;
  GuardedMatrix x(rows, cols, gap, misalign);
  GuardedMatrix y(rows, cols, 2 * gap, misalign);
  GuardedMatrix dy(rows, cols, gap, 1);
  GuardedMatrix dx(rows, cols, gap, misalign);
  x.FillNormal(rng, 3.0f, spread);
  dy.FillNormal(rng);
  SoftmaxForward(x.view(), y.view(), groups);
  SoftmaxBackward(y.view(), dy.view(), dx.view(), groups);
  CHECK(y.GuardsIntact());
  CHECK(dx.GuardsIntact());

  std::vector<double> in = x.Doubles();
  std::vector<double> expected(rows * cols);
  reference::SoftmaxForward<double>(AsMat(in, rows, cols), AsMat(expected, rows, cols), groups);
  const std::vector<double> result = y.Doubles();
  WorstError error(1e-37);
  double largest = 0.0;
  for (size_t i = 0; i < result.size(); ++i) {
    const auto run = in.begin() + static_cast<std::ptrdiff_t>(i);
    if (i % size == 0) largest = *std::max_element(run, run + static_cast<std::ptrdiff_t>(size));
    const double below = largest - in[i];
    error.Add(result[i], expected[i], expected[i] * (1.0 + below));
  }
  CHECK(error.value() <= kSoftmaxTolerance);

  // The gradient from the kernel's own y.
  std::vector<double> probabilities = result;
  std::vector<double> gradient = dy.Doubles();
  reference::SoftmaxBackward<double>(AsMat(probabilities, rows, cols), AsMat(gradient, rows, cols),
                                     AsMat(expected, rows, cols), groups);
  const std::vector<double> dx_result = dx.Doubles();
  WorstError gradient_error(1e-37);
  double dot = 0.0;
  for (size_t i = 0; i < result.size(); ++i) {
    if (i % size == 0) {
      dot = 0.0;
      for (size_t j = i; j < i + size; ++j) dot += std::fabs(result[j] * gradient[j]);
    }
    const double norm = std::fabs(gradient[i]) + dot;
    gradient_error.Add(dx_result[i], expected[i], result[i] * norm);
  }
  CHECK(gradient_error.value() <= kSoftmaxTolerance);

  // In place, and row by row: the same bits.
  GuardedMatrix z = x;
  SoftmaxForward(z.view(), z.view(), groups);
  CHECK(z.GuardsIntact());
  CHECK(z.Doubles() == result);
  GuardedMatrix over_dy = dy;
  SoftmaxBackward(y.view(), over_dy.view(), over_dy.view(), groups);
  CHECK(over_dy.Doubles() == dx_result);
  GuardedMatrix over_y = y;
  SoftmaxBackward(over_y.view(), dy.view(), over_y.view(), groups);
  CHECK(over_y.GuardsIntact());
  CHECK(over_y.Doubles() == dx_result);
  for (size_t r = 0; r < rows; ++r) {
    SoftmaxForward(x.view().Rows(r, 1), z.view().Rows(r, 1), groups);
    SoftmaxBackward(y.view().Rows(r, 1), dy.view().Rows(r, 1), over_dy.view().Rows(r, 1), groups);
  }
  CHECK(z.Doubles() == result);
  CHECK(over_dy.Doubles() == dx_result);
}

TEST_CASE("softmax: all widths and groups, strides, in place, row by row") {
  testing::ForEachTarget([] {
    for (size_t size = 1; size <= 70; ++size) {
      Check(3, 1, size, size % 3, size % 4, 2.0f);
      Check(2, 1, size, 0, 1, 8.0f);
    }
    for (size_t size = 1; size <= 33; ++size) {
      Check(7, 2, size, 0, 0, 2.0f);
      Check(3, 3, size, 5, 2, 2.0f);
    }
    Check(40, 4, 4, 0, 0, 2.0f);
    Check(40, 4, 16, 3, 0, 2.0f);
    Check(1, 1, 1000, 0, 0, 3.0f);
    Check(1, 1, 32768, 0, 0, 3.0f);
    Check(0, 2, 8, 0, 0, 1.0f);
  });
}

TEST_CASE("softmax: the bounds where the terms of a long run are equal") {
  testing::ForEachTarget([] {
    for (const size_t size : {2048, 32768}) {
      CAPTURE(size);
      const double lanes = static_cast<double>(VectorBytes()) / sizeof(float);
      const double bound = kSoftmaxTolerance + std::ldexp(static_cast<double>(size) / lanes, -24);
      std::vector<float> x(size, -1.3f), y(size);
      x[7] = 0.0f;
      SoftmaxForward(AsMat(x, 1, size), AsMat(y, 1, size));
      const double other = std::exp(static_cast<double>(x[0]));
      const double expected = other / (1.0 + static_cast<double>(size - 1) * other);
      CHECK(std::fabs(y[0] - expected) <= bound * expected * 2.3);

      const float p = 1.3f / static_cast<float>(size);
      std::vector<float> ps(size, p), dy(size, 1.7f), dx(size);
      SoftmaxBackward(AsMat(ps, 1, size), AsMat(dy, 1, size), AsMat(dx, 1, size));
      const double sum = static_cast<double>(size) * p * 1.7f;
      CHECK(std::fabs(dx[0] - p * (1.7f - sum)) <= bound * p * (1.7f + sum));
    }
  });
}

TEST_CASE("softmax: no columns") {
  testing::ForEachTarget([] {
    for (const size_t groups : {1, 2}) {
      GuardedMatrix x(3, 0, 5, 1), y(3, 0, 2, 3);
      SoftmaxForward(x.view(), y.view(), groups);
      SoftmaxBackward(x.view(), y.view(), y.view(), groups);
      CHECK(y.GuardsIntact());
    }
  });
}

TEST_CASE("softmax: large, infinite and NaN inputs") {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  testing::ForEachTarget([] {
    for (const size_t size : {2, 3, 4, 8, 16, 17, 33, 64}) {
      CAPTURE(size);
      for (const size_t at : {size_t{0}, size / 2, size - 1}) {
        std::vector<float> x(3 * size, -1e30f);
        std::vector<float> y(3 * size);
        x[at] = 3e38f;           // row 0: one winner, far away
        x[size + at] = -kInf;    // row 1: one that does not take part
        x[2 * size + at] = NAN;  // row 2: NaN spoils the whole row
        SoftmaxForward(AsMat(x, 3, size), AsMat(y, 3, size));
        for (size_t c = 0; c < size; ++c) {
          CHECK(y[c] == (c == at ? 1.0f : 0.0f));
          const float rest = c == at ? 0.0f : 1.0f / static_cast<float>(size - 1);
          CHECK(std::fabs(y[size + c] - rest) <= 1e-6f * rest);
          CHECK(std::isnan(y[2 * size + c]));
        }
      }
    }
  });
}

TEST_CASE("softmax: the reference gradient is the derivative") {
  std::mt19937 rng(4);
  std::vector<double> x = GuardedMatrix(2, 12).FillNormal(rng).Doubles();
  std::vector<double> dy = GuardedMatrix(2, 12).FillNormal(rng).Doubles();
  std::vector<double> y(24);
  std::vector<double> dx(24);
  const auto loss = [&] {
    reference::SoftmaxForward<double>(AsMat(x, 2, 12), AsMat(y, 2, 12), 3);
    return testing::DotProduct(y, dy);
  };
  loss();
  reference::SoftmaxBackward<double>(AsMat(y, 2, 12), AsMat(dy, 2, 12), AsMat(dx, 2, 12), 3);
  CHECK(testing::GradientError(x, dx, loss) < 1e-8);
}

}  // namespace
}  // namespace lanewise::kernels
