#include "kernels/rms_norm.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/rms_norm.h"
#include "tests/kernels/norm_problem.h"
#include "tests/support/buffers.h"
#include "tests/support/compare.h"
#include "tests/support/gradient.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using testing::AsMat;
using testing::GuardedMatrix;
using testing::WorstError;

constexpr float kEps = 1e-5f;

struct Problem {
  explicit Problem(const NormCase& c)
      : rows(c.rows),
        cols(c.cols),
        x(rows, cols, c.gap, c.misalign),
        y(rows, cols, 2 * c.gap, c.misalign),
        dy(rows, cols, c.gap, 1),
        dx(rows, cols, c.gap, c.misalign),
        residual(rows, cols, 1, 2),
        w(1, cols, 0, c.misalign),
        rstd(1, rows),
        dw(1, cols, 0, 3) {
    std::mt19937 rng(static_cast<unsigned>(31 * rows + cols));
    x.FillNormal(rng, c.mean, c.spread);
    dy.FillNormal(rng);
    residual.FillNormal(rng);
    w.FillNormal(rng, 1.0f);
    dw.FillNormal(rng);
  }

  size_t rows, cols;
  GuardedMatrix x, y, dy, dx, residual, w, rstd, dw;
};

// Against the reference, by the bounds of the header.
void CheckErrors(const Problem& before, Problem& p) {
  std::vector<double> xd = p.x.Doubles(), wd = p.w.Doubles(), dyd = p.dy.Doubles();
  std::vector<double> yd(xd.size()), dxd(xd.size()), rd(p.rows);
  std::vector<double> dwd = before.dw.Doubles();
  reference::RmsNormForward<double>(AsMat(xd, p.rows, p.cols), wd, kEps, AsMat(yd, p.rows, p.cols),
                                    rd);
  reference::RmsNormBackward<double>(AsMat(xd, p.rows, p.cols), wd, rd, AsMat(dyd, p.rows, p.cols),
                                     AsMat(dxd, p.rows, p.cols), dwd);
  const std::vector<double> res = p.residual.Doubles();
  WorstError y_error, dx_error, dw_error;
  std::vector<double> dw_terms = before.dw.Doubles();
  for (double& term : dw_terms) term = std::fabs(term);
  for (size_t r = 0; r < p.rows; ++r) {
    double largest_g = 0.0;
    for (size_t i = r * p.cols; i < (r + 1) * p.cols; ++i) {
      largest_g = std::max(largest_g, std::fabs(wd[i % p.cols] * dyd[i]));
    }
    for (size_t j = 0; j < p.cols; ++j) {
      const size_t i = r * p.cols + j;
      const double xhat = std::fabs(xd[i] * rd[r]);
      y_error.Add(p.y.view().Row(r)[j], yd[i], std::fabs(yd[i]));
      dx_error.Add(p.dx.view().Row(r)[j], dxd[i] + res[i],
                   rd[r] * (1.0 + xhat) * largest_g + std::fabs(res[i]));
      dw_terms[j] += std::fabs(dyd[i]) * xhat;
    }
  }
  for (size_t j = 0; j < p.cols; ++j) dw_error.Add(p.dw.span()[j], dwd[j], dw_terms[j]);
  for (const WorstError& error : {y_error, dx_error, dw_error}) {
    CHECK(error.value() <= kRmsNormTolerance);
  }
}

// In place, frozen parameters, dx over dy, over x and over the residual: the same bits.
void CheckAliases(Problem& p) {
  GuardedMatrix z = p.x;
  RmsNormForward(z.view(), p.w.span(), kEps, z.view(), {});
  CHECK(z.Doubles() == p.y.Doubles());
  const auto backward = [&](Mat<const float> xv, Mat<const float> dyv, Mat<float> dxv,
                            Mat<const float> residual_v) {
    RmsNormBackward(xv, p.w.span(), p.rstd.span(), dyv, dxv, {}, residual_v);
  };
  CheckBackwardInPlace(p.x, p.dy, p.residual, p.dx, backward);
}

// Row by row into the same dw; and without the residual.
void CheckRows(const Problem& before, Problem& p) {
  GuardedMatrix dw_rows = before.dw, dx_rows(p.rows, p.cols);
  for (size_t r = 0; r < p.rows; ++r) {
    RmsNormBackward(p.x.view().Rows(r, 1), p.w.span(), p.rstd.span().subspan(r, 1),
                    p.dy.view().Rows(r, 1), dx_rows.view().Rows(r, 1), dw_rows.span());
  }
  CHECK(dw_rows.Doubles() == p.dw.Doubles());
  CheckResidual(p.dx.Doubles(), dx_rows.Doubles(), p.residual.Doubles());
}

void Check(const NormCase& c) {
  CAPTURE(c.rows);
  CAPTURE(c.cols);
  CAPTURE(c.mean);
  Problem p(c);
  const Problem before = p;
  RmsNormForward(p.x.view(), p.w.span(), kEps, p.y.view(), p.rstd.span());
  RmsNormBackward(p.x.view(), p.w.span(), p.rstd.span(), p.dy.view(), p.dx.view(), p.dw.span(),
                  p.residual.view());
  for (const GuardedMatrix* m : {&p.y, &p.dx, &p.rstd, &p.dw}) {
    CHECK(m->GuardsIntact());
  }
  CheckErrors(before, p);
  CheckAliases(p);
  CheckRows(before, p);
}

TEST_CASE("rms_norm: all widths, strides, aliases, residual, partition") {
  testing::ForEachTarget([] { ForEachNormCase(Check); });
}

TEST_CASE("rms_norm: beyond the range of the squares' sum") {
  testing::ForEachTarget([] {
    std::vector<float> x(20, 1e19f), y(20, NAN), w(20, 1.0f), rstd(1, NAN);
    x[7] = -1e19f;
    RmsNormForward(AsMat(x, 1, 20), w, kEps, AsMat(y, 1, 20), rstd);
    CHECK(rstd[0] == 0.0f);
    for (const float value : y) CHECK(value == 0.0f);
  });
}

TEST_CASE("rms_norm: a residual of no rows is none") {
  testing::ForEachTarget([] {
    std::vector<float> x(8, 2.0f), w(8, 1.0f), rstd(1, 1.0f), dx(8), dx2(8), other(8, 9.0f);
    const auto backward = [&](std::vector<float>& out, Mat<const float> residual) {
      RmsNormBackward(AsMat(x, 1, 8), w, rstd, AsMat(x, 1, 8), AsMat(out, 1, 8), {}, residual);
    };
    backward(dx, {});
    backward(dx2, AsMat(other, 1, 8).Rows(0, 0));
    CHECK(dx2 == dx);
  });
}

TEST_CASE("rms_norm: NaN stays in its row") {
  testing::ForEachTarget([] {
    std::vector<float> x(3 * 20, 1.0f), y(3 * 20), w(20, 1.0f), rstd(3);
    x[0] = x[40] = 2.0f;
    x[20 + 19] = NAN;
    RmsNormForward(AsMat(x, 3, 20), w, kEps, AsMat(y, 3, 20), rstd);
    for (size_t c = 0; c < 20; ++c) {
      CHECK(std::isfinite(y[c]));
      CHECK(std::isnan(y[20 + c]));
      CHECK(y[40 + c] == y[c]);
    }
  });
}

TEST_CASE("rms_norm: the reference gradients are the derivatives") {
  std::mt19937 rng(5);
  constexpr size_t kRows = 3, kCols = 7;
  std::vector<double> x = GuardedMatrix(kRows, kCols).FillNormal(rng).Doubles();
  std::vector<double> dy = GuardedMatrix(kRows, kCols).FillNormal(rng).Doubles();
  std::vector<double> w = GuardedMatrix(1, kCols).FillNormal(rng).Doubles();
  std::vector<double> y(x.size()), dx(x.size()), rstd(kRows), dw(kCols);
  const auto loss = [&] {
    reference::RmsNormForward<double>(AsMat(x, kRows, kCols), w, 1e-5, AsMat(y, kRows, kCols),
                                      rstd);
    return testing::DotProduct(y, dy);
  };
  loss();
  reference::RmsNormBackward<double>(AsMat(x, kRows, kCols), w, rstd, AsMat(dy, kRows, kCols),
                                     AsMat(dx, kRows, kCols), dw);
  CHECK(testing::GradientError(x, dx, loss) < 1e-7);
  CHECK(testing::GradientError(w, dw, loss) < 1e-7);
}

}  // namespace
}  // namespace lanewise::kernels
