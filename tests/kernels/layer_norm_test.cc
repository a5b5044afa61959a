#include "kernels/layer_norm.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/layer_norm.h"
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

constexpr float kEps = 1e-6f;

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
        b(1, cols),
        mean(1, rows),
        rstd(1, rows),
        dw(1, cols, 0, 3),
        db(1, cols, 0, 1) {
    std::mt19937 rng(static_cast<unsigned>(31 * rows + cols));
    x.FillNormal(rng, c.mean, c.spread);
    dy.FillNormal(rng);
    residual.FillNormal(rng);
    w.FillNormal(rng, 1.0f);
    b.FillNormal(rng);
    dw.FillNormal(rng);
    db.FillNormal(rng);
  }

  size_t rows, cols;
  GuardedMatrix x, y, dy, dx, residual, w, b, mean, rstd, dw, db;
};

// Against the reference, by the bounds of the header.
void CheckErrors(const Problem& before, Problem& p) {
  std::vector<double> xd = p.x.Doubles(), wd = p.w.Doubles(), bd = p.b.Doubles(),
                      dyd = p.dy.Doubles();
  std::vector<double> yd(xd.size()), dxd(xd.size()), md(p.rows), rd(p.rows);
  std::vector<double> dwd = before.dw.Doubles(), dbd = before.db.Doubles();
  reference::LayerNormForward<double>(AsMat(xd, p.rows, p.cols), wd, bd, kEps,
                                      AsMat(yd, p.rows, p.cols), md, rd);
  reference::LayerNormBackward<double>(AsMat(xd, p.rows, p.cols), wd, md, rd,
                                       AsMat(dyd, p.rows, p.cols), AsMat(dxd, p.rows, p.cols), dwd,
                                       dbd);
  const std::vector<double> res = p.residual.Doubles();
  WorstError y_error, dx_error, dw_error, db_error;
  std::vector<double> dw_terms = before.dw.Doubles(), db_terms = before.db.Doubles();
  for (double& term : dw_terms) term = std::fabs(term);
  for (double& term : db_terms) term = std::fabs(term);
  for (size_t r = 0; r < p.rows; ++r) {
    double largest_x = 0.0, largest_g = 0.0;
    for (size_t i = r * p.cols; i < (r + 1) * p.cols; ++i) {
      largest_x = std::max(largest_x, std::fabs(xd[i]));
      largest_g = std::max(largest_g, std::fabs(wd[i % p.cols] * dyd[i]));
    }
    const double size = 1.0 + rd[r] * largest_x;
    for (size_t j = 0; j < p.cols; ++j) {
      const size_t i = r * p.cols + j;
      const double xhat = (xd[i] - md[r]) * rd[r];
      y_error.Add(p.y.view().Row(r)[j], yd[i], std::fabs(wd[j]) * size + std::fabs(bd[j]));
      dx_error.Add(p.dx.view().Row(r)[j], dxd[i] + res[i],
                   rd[r] * size * (1.0 + std::fabs(xhat)) * largest_g + std::fabs(res[i]));
      dw_terms[j] += std::fabs(dyd[i]) * size;
      db_terms[j] += std::fabs(dyd[i]);
    }
  }
  for (size_t j = 0; j < p.cols; ++j) {
    dw_error.Add(p.dw.span()[j], dwd[j], dw_terms[j]);
    db_error.Add(p.db.span()[j], dbd[j], db_terms[j]);
  }
  for (const WorstError& error : {y_error, dx_error, dw_error, db_error}) {
    CHECK(error.value() <= kLayerNormTolerance);
  }
}

// In place, frozen parameters, dx over dy, over x and over the residual: the same bits.
void CheckAliases(Problem& p) {
  GuardedMatrix z = p.x;
  LayerNormForward(z.view(), p.w.span(), p.b.span(), kEps, z.view(), {}, {});
  CHECK(z.Doubles() == p.y.Doubles());
  const auto backward = [&](Mat<const float> xv, Mat<const float> dyv, Mat<float> dxv,
                            Mat<const float> residual_v) {
    LayerNormBackward(xv, p.w.span(), p.mean.span(), p.rstd.span(), dyv, dxv, {}, {}, residual_v);
  };
  CheckBackwardInPlace(p.x, p.dy, p.residual, p.dx, backward);
}

// Row by row into the same dw, db; and without the residual.
void CheckRows(const Problem& before, Problem& p) {
  GuardedMatrix dw_rows = before.dw, db_rows = before.db, dx_rows(p.rows, p.cols);
  for (size_t r = 0; r < p.rows; ++r) {
    LayerNormBackward(p.x.view().Rows(r, 1), p.w.span(), p.mean.span().subspan(r, 1),
                      p.rstd.span().subspan(r, 1), p.dy.view().Rows(r, 1),
                      dx_rows.view().Rows(r, 1), dw_rows.span(), db_rows.span());
  }
  CHECK(dw_rows.Doubles() == p.dw.Doubles());
  CHECK(db_rows.Doubles() == p.db.Doubles());
  CheckResidual(p.dx.Doubles(), dx_rows.Doubles(), p.residual.Doubles());
}

void Check(const NormCase& c) {
  CAPTURE(c.rows);
  CAPTURE(c.cols);
  CAPTURE(c.mean);
  Problem p(c);
  const Problem before = p;
  LayerNormForward(p.x.view(), p.w.span(), p.b.span(), kEps, p.y.view(), p.mean.span(),
                   p.rstd.span());
  LayerNormBackward(p.x.view(), p.w.span(), p.mean.span(), p.rstd.span(), p.dy.view(), p.dx.view(),
                    p.dw.span(), p.db.span(), p.residual.view());
  for (const GuardedMatrix* m : {&p.y, &p.dx, &p.mean, &p.rstd, &p.dw, &p.db}) {
    CHECK(m->GuardsIntact());
  }
  CheckErrors(before, p);
  CheckAliases(p);
  CheckRows(before, p);
}

TEST_CASE("layer_norm: all widths, strides, aliases, residual, partition") {
  testing::ForEachTarget([] { ForEachNormCase(Check); });
}

// Rows beyond the second-level cache, and beyond every cache, go in other orders.
void CheckLargeRange(size_t rows, size_t cols) {
  std::mt19937 rng(9);
  GuardedMatrix x(rows, cols), dy(rows, cols), y(rows, cols), dx(rows, cols), row(1, cols);
  GuardedMatrix w(1, cols), b(1, cols), mean(1, rows), rstd(1, rows);
  for (GuardedMatrix* m : {&x, &dy, &w, &b}) m->FillNormal(rng);
  testing::ForEachTarget([&] {
    GuardedMatrix dw(1, cols), db(1, cols);
    dw.FillNormal(rng);
    db.FillNormal(rng);
    GuardedMatrix dw_rows = dw, db_rows = db;
    LayerNormForward(x.view(), w.span(), b.span(), kEps, y.view(), mean.span(), rstd.span());
    LayerNormBackward(x.view(), w.span(), mean.span(), rstd.span(), dy.view(), dx.view(), dw.span(),
                      db.span());
    const auto is_row = [&](const GuardedMatrix& of, size_t r) {
      return std::equal(row.view().Row(0), row.view().Row(0) + cols, of.view().Row(r));
    };
    for (size_t r = 0; r < rows; ++r) {
      LayerNormForward(x.view().Rows(r, 1), w.span(), b.span(), kEps, row.view(), {}, {});
      REQUIRE(is_row(y, r));
      LayerNormBackward(x.view().Rows(r, 1), w.span(), mean.span().subspan(r, 1),
                        rstd.span().subspan(r, 1), dy.view().Rows(r, 1), row.view(), dw_rows.span(),
                        db_rows.span());
      REQUIRE(is_row(dx, r));
    }
    CHECK(dw_rows.Doubles() == dw.Doubles());
    CHECK(db_rows.Doubles() == db.Doubles());
  });
}

TEST_CASE("layer_norm: a range beyond the caches has the bits of its rows") {
  CheckLargeRange(1023, 135);
  CheckLargeRange(2051, 2049);
}

TEST_CASE("layer_norm: beyond the range of the squares' sum") {
  testing::ForEachTarget([] {
    std::vector<float> x(20, 1e19f), y(20, NAN), w(20, 1.0f), b(20, 3.0f), mean(1), rstd(1, NAN);
    x[7] = -1e19f;
    LayerNormForward(AsMat(x, 1, 20), w, b, kEps, AsMat(y, 1, 20), mean, rstd);
    CHECK(rstd[0] == 0.0f);
    for (const float value : y) CHECK(value == 3.0f);
    std::fill(x.begin(), x.end(), 1.6e37f);  // their sum is just below the largest float
    x[7] = -1.6e37f;
    LayerNormForward(AsMat(x, 1, 20), w, b, kEps, AsMat(y, 1, 20), mean, rstd);
    CHECK(rstd[0] == 0.0f);
    for (const float value : y) CHECK(value == 3.0f);
  });
}

TEST_CASE("layer_norm: a residual of no rows is none") {
  testing::ForEachTarget([] {
    std::vector<float> x(8, 2.0f), w(8, 1.0f), mean(1), rstd(1, 1.0f), dx(8), dx2(8),
        other(8, 9.0f);
    const auto backward = [&](std::vector<float>& out, Mat<const float> residual) {
      LayerNormBackward(AsMat(x, 1, 8), w, mean, rstd, AsMat(x, 1, 8), AsMat(out, 1, 8), {}, {},
                        residual);
    };
    backward(dx, {});
    backward(dx2, AsMat(other, 1, 8).Rows(0, 0));
    CHECK(dx2 == dx);
  });
}

TEST_CASE("layer_norm: NaN stays in its row") {
  testing::ForEachTarget([] {
    std::vector<float> x(3 * 20, 1.0f), y(3 * 20), w(20, 1.0f), b(20, 0.0f), mean(3), rstd(3);
    x[0] = x[40] = 2.0f;
    x[20 + 19] = NAN;
    LayerNormForward(AsMat(x, 3, 20), w, b, kEps, AsMat(y, 3, 20), mean, rstd);
    for (size_t c = 0; c < 20; ++c) {
      CHECK(std::isfinite(y[c]));
      CHECK(std::isnan(y[20 + c]));
      CHECK(y[40 + c] == y[c]);
    }
  });
}

TEST_CASE("layer_norm: the reference gradients are the derivatives") {
  std::mt19937 rng(5);
  constexpr size_t kRows = 3, kCols = 7;
  std::vector<double> x = GuardedMatrix(kRows, kCols).FillNormal(rng).Doubles();
  std::vector<double> dy = GuardedMatrix(kRows, kCols).FillNormal(rng).Doubles();
  std::vector<double> w = GuardedMatrix(1, kCols).FillNormal(rng).Doubles();
  std::vector<double> b = GuardedMatrix(1, kCols).FillNormal(rng).Doubles();
  std::vector<double> y(x.size()), dx(x.size()), mean(kRows), rstd(kRows), dw(kCols), db(kCols);
  const auto loss = [&] {
    reference::LayerNormForward<double>(AsMat(x, kRows, kCols), w, b, 1e-6, AsMat(y, kRows, kCols),
                                        mean, rstd);
    return testing::DotProduct(y, dy);
  };
  loss();
  reference::LayerNormBackward<double>(AsMat(x, kRows, kCols), w, mean, rstd,
                                       AsMat(dy, kRows, kCols), AsMat(dx, kRows, kCols), dw, db);
  CHECK(testing::GradientError(x, dx, loss) < 1e-7);
  CHECK(testing::GradientError(w, dw, loss) < 1e-7);
  CHECK(testing::GradientError(b, db, loss) < 1e-7);
}

}  // namespace
}  // namespace lanewise::kernels
