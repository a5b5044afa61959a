#include "kernels/swiglu.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/swiglu.h"
#include "tests/support/buffers.h"
#include "tests/support/compare.h"
#include "tests/support/gradient.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using testing::AsMat;
using testing::GuardedMatrix;
using testing::WorstError;

// Every error relative to its entry's own bound in swiglu.h.
void CheckErrors(const GuardedMatrix& gate_up, const GuardedMatrix& dh, const GuardedMatrix& h,
                 const GuardedMatrix& d_gate_up) {
  const Mat<const float> in = gate_up.view();
  const size_t rows = in.rows;
  const size_t width = in.cols / 2;
  std::vector<double> x = gate_up.Doubles();
  std::vector<double> dy = dh.Doubles();
  std::vector<double> y(rows * width);
  std::vector<double> dx(rows * width * 2);
  reference::SwigluForward<double>(AsMat(x, rows, 2 * width), AsMat(y, rows, width));
  reference::SwigluBackward<double>(AsMat(x, rows, 2 * width), AsMat(dy, rows, width),
                                    AsMat(dx, rows, 2 * width));
  WorstError h_error(1e-38), d_gate_error(1e-38), d_up_error(1e-38);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < width; ++c) {
      const double g = in.Row(r)[c];
      const double u = in.Row(r)[width + c];
      const double d = dh.view().Row(r)[c];
      const double expected_h = y[r * width + c];
      const double expected_dg = dx[r * 2 * width + c];
      const double expected_du = dx[r * 2 * width + width + c];
      const bool tiny = g < -87.3;
      const double tiny_bound = 2e-36 / kSwigluTolerance;
      h_error.Add(h.view().Row(r)[c], expected_h,
                  tiny ? tiny_bound * std::fabs(u) : std::fabs(expected_h));
      d_gate_error.Add(d_gate_up.view().Row(r)[c], expected_dg,
                       std::fabs(d * u) * (1.0 + std::fabs(g)));
      d_up_error.Add(d_gate_up.view().Row(r)[width + c], expected_du,
                     tiny ? tiny_bound * std::fabs(d) : std::fabs(expected_du));
    }
  }
  for (const WorstError& error : {h_error, d_gate_error, d_up_error}) {
    CHECK(error.value() <= kSwigluTolerance);
  }
}

TEST_CASE("swiglu: all widths, strides, recomputed h, in place") {
  std::mt19937 rng(2);
  testing::ForEachTarget([&] {
    for (size_t width = 1; width <= 67; ++width) {
      CAPTURE(width);
      const size_t gap = width % 3;
      const size_t misalign = width % 5;
      GuardedMatrix gate_up(3, 2 * width, gap, misalign);
      GuardedMatrix dh(3, width, 2 * gap, 1);
      GuardedMatrix h(3, width, gap, 3);
      GuardedMatrix d_gate_up(3, 2 * width, 0, misalign);
      gate_up.FillNormal(rng, 0.0f, 4.0f);
      dh.FillNormal(rng);
      SwigluForward(gate_up.view(), h.view());
      SwigluBackward(gate_up.view(), dh.view(), d_gate_up.view());
      CheckErrors(gate_up, dh, h, d_gate_up);
      CHECK(h.GuardsIntact());
      CHECK(d_gate_up.GuardsIntact());

      // In place: gradients over gate_up, h over dh; and forward into either half.
      GuardedMatrix both = gate_up;
      GuardedMatrix h_again = dh;
      SwigluBackward(both.view(), h_again.view(), both.view(), h_again.view());
      GuardedMatrix left = gate_up;
      SwigluForward(left.view(), left.view().Cols(0, width));
      GuardedMatrix right = gate_up;
      SwigluForward(right.view(), right.view().Cols(width, width));
      CHECK(both.GuardsIntact());
      CHECK(h_again.GuardsIntact());
      CHECK(both.Doubles() == d_gate_up.Doubles());
      CHECK(h_again.Doubles() == h.Doubles());
      for (size_t r = 0; r < 3; ++r) {
        for (size_t c = 0; c < width; ++c) {
          CHECK(left.view().Row(r)[c] == h.view().Row(r)[c]);
          CHECK(right.view().Row(r)[width + c] == h.view().Row(r)[c]);
        }
      }
    }
  });
}

TEST_CASE("swiglu: the bounds for all gates") {
  constexpr size_t kWidth = 40000;
  GuardedMatrix gate_up(1, 2 * kWidth), dh(1, kWidth), h(1, kWidth), d_gate_up(1, 2 * kWidth);
  for (size_t c = 0; c < kWidth; ++c) {
    gate_up.span()[c] = -200.0f + 0.01f * static_cast<float>(c);
    gate_up.span()[kWidth + c] = 1.0f + static_cast<float>(c % 10);
    dh.span()[c] = -3.0f;
  }
  testing::ForEachTarget([&] {
    SwigluForward(gate_up.view(), h.view());
    SwigluBackward(gate_up.view(), dh.view(), d_gate_up.view());
    CheckErrors(gate_up, dh, h, d_gate_up);
  });
}

TEST_CASE("swiglu: extreme gates stay finite, NaN propagates, no rows") {
  testing::ForEachTarget([] {
    std::vector<float> x = {-200.0f, -90.0f, 200.0f, NAN, 1.0f, 1.0f, 1.0f, 1.0f};
    std::vector<float> dh(4, 1.0f);
    std::vector<float> h(4);
    std::vector<float> dx(8);
    SwigluForward(AsMat(x, 1, 8), AsMat(h, 1, 4));
    SwigluBackward(AsMat(x, 1, 8), AsMat(dh, 1, 4), AsMat(dx, 1, 8));
    CHECK(std::fabs(h[0]) < 1e-30f);
    CHECK(std::fabs(h[1]) < 1e-30f);
    CHECK(h[2] == 200.0f);
    CHECK(std::isnan(h[3]));
    CHECK(std::fabs(dx[0]) < 1e-30f);
    CHECK(dx[2] == 1.0f);
    CHECK(std::isnan(dx[3]));
    CHECK(dx[6] == 200.0f);
    std::vector<float> other(4, 7.0f);
    SwigluBackward(AsMat(x, 1, 8), AsMat(dh, 1, 4), AsMat(dx, 1, 8), AsMat(other, 1, 4).Rows(0, 0));
    CHECK(other == std::vector<float>(4, 7.0f));
    SwigluForward({nullptr, 0, 8, 8}, {nullptr, 0, 4, 4});
    SwigluBackward({nullptr, 0, 8, 8}, {nullptr, 0, 4, 4}, {nullptr, 0, 8, 8});
  });
}

TEST_CASE("swiglu: the reference gradient is the derivative") {
  std::mt19937 rng(3);
  std::vector<double> x = GuardedMatrix(2, 10).FillNormal(rng, 0.0f, 2.0f).Doubles();
  std::vector<double> dh = GuardedMatrix(2, 5).FillNormal(rng).Doubles();
  std::vector<double> h(10);
  std::vector<double> dx(20);
  reference::SwigluBackward<double>(AsMat(x, 2, 10), AsMat(dh, 2, 5), AsMat(dx, 2, 10));
  const auto loss = [&] {
    reference::SwigluForward<double>(AsMat(x, 2, 10), AsMat(h, 2, 5));
    return testing::DotProduct(h, dh);
  };
  CHECK(testing::GradientError(x, dx, loss) < 1e-8);
}

}  // namespace
}  // namespace lanewise::kernels
