#include "kernels/layer_norm.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/layer_norm.h"
#include "tests/support/buffers.h"
#include "tests/support/gradient.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using testing::AsMat;
using testing::GuardedMatrix;

constexpr float kEps = 1e-6f;

double MaxError(const std::vector<double>& a, const std::vector<double>& b, double norm) {
  double worst = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double error = std::fabs(a[i] - b[i]) / std::max(norm, 1e-30);
    worst = std::max(worst, std::isnan(error) ? 1e30 : error);
  }
  return worst;
}

double Largest(const std::vector<double>& a) {
  double largest = 0.0;
  for (const double v : a) largest = std::max(largest, std::fabs(v));
  return largest;
}

struct Case {
  size_t rows, cols, gap, misalign;
  float mean;
};

void Check(const Case& c) {
  CAPTURE(c.rows);
  CAPTURE(c.cols);
  std::mt19937 rng(static_cast<unsigned>(31 * c.rows + c.cols));
  GuardedMatrix x(c.rows, c.cols, c.gap, c.misalign);
  GuardedMatrix y(c.rows, c.cols, 2 * c.gap, c.misalign);
  GuardedMatrix dy(c.rows, c.cols, c.gap, 1);
  GuardedMatrix dx(c.rows, c.cols, c.gap, c.misalign);
  GuardedMatrix residual(c.rows, c.cols, 1, 2);
  GuardedMatrix w(1, c.cols, 0, c.misalign), b(1, c.cols), mean(1, c.rows), rstd(1, c.rows);
  GuardedMatrix dw(1, c.cols, 0, 3), db(1, c.cols, 0, 1);
  x.FillNormal(rng, c.mean);
  dy.FillNormal(rng);
  residual.FillNormal(rng);
  w.FillNormal(rng, 1.0f);
  b.FillNormal(rng);
  dw.FillNormal(rng);
  db.FillNormal(rng);
  const GuardedMatrix dw_before = dw;
  const GuardedMatrix db_before = db;

  LayerNormForward(x.view(), w.span(), b.span(), kEps, y.view(), mean.span(), rstd.span());
  LayerNormBackward(x.view(), w.span(), mean.span(), rstd.span(), dy.view(), dx.view(), dw.span(),
                    db.span(), residual.view());
  for (const GuardedMatrix* m : {&y, &dx, &mean, &rstd, &dw, &db}) CHECK(m->GuardsIntact());

  std::vector<double> xd = x.Doubles(), wd = w.Doubles(), bd = b.Doubles(), dyd = dy.Doubles();
  std::vector<double> yd(xd.size()), dxd(xd.size()), md(c.rows), rd(c.rows);
  std::vector<double> dwd = dw_before.Doubles(), dbd = db_before.Doubles();
  reference::LayerNormForward<double>(AsMat(xd, c.rows, c.cols), wd, bd, kEps,
                                      AsMat(yd, c.rows, c.cols), md, rd);
  reference::LayerNormBackward<double>(AsMat(xd, c.rows, c.cols), wd, md, rd,
                                       AsMat(dyd, c.rows, c.cols), AsMat(dxd, c.rows, c.cols), dwd,
                                       dbd);
  const std::vector<double> res = residual.Doubles();
  for (size_t i = 0; i < res.size(); ++i) dxd[i] += res[i];
  CHECK(MaxError(y.Doubles(), yd, Largest(yd)) <= kLayerNormTolerance);
  CHECK(MaxError(dx.Doubles(), dxd, Largest(rd) * Largest(wd) * Largest(dyd) + Largest(res)) <=
        kLayerNormTolerance);
  const double terms = static_cast<double>(c.rows + 1);
  CHECK(MaxError(dw.Doubles(), dwd, terms * Largest(dyd)) <= kLayerNormTolerance);
  CHECK(MaxError(db.Doubles(), dbd, terms * Largest(dyd)) <= kLayerNormTolerance);

  // In place, frozen parameters, dx over dy, over x and over the residual: the same bits.
  GuardedMatrix z = x;
  LayerNormForward(z.view(), w.span(), b.span(), kEps, z.view(), {}, {});
  CHECK(z.Doubles() == y.Doubles());
  const auto backward = [&](Mat<const float> xv, Mat<const float> dyv, Mat<float> dxv,
                            Mat<const float> residual_v) {
    LayerNormBackward(xv, w.span(), mean.span(), rstd.span(), dyv, dxv, {}, {}, residual_v);
  };
  GuardedMatrix over_dy = dy, over_x = x, over_residual = residual;
  backward(x.view(), over_dy.view(), over_dy.view(), residual.view());
  backward(over_x.view(), dy.view(), over_x.view(), residual.view());
  backward(x.view(), dy.view(), over_residual.view(), over_residual.view());
  CHECK(over_dy.Doubles() == dx.Doubles());
  CHECK(over_x.Doubles() == dx.Doubles());
  CHECK(over_residual.Doubles() == dx.Doubles());
  CHECK(over_residual.GuardsIntact());

  // Row by row into the same dw, db; and without the residual.
  GuardedMatrix dw_rows = dw_before, db_rows = db_before, dx_rows(c.rows, c.cols);
  for (size_t r = 0; r < c.rows; ++r) {
    LayerNormBackward(x.view().Rows(r, 1), w.span(), mean.span().subspan(r, 1),
                      rstd.span().subspan(r, 1), dy.view().Rows(r, 1), dx_rows.view().Rows(r, 1),
                      dw_rows.span(), db_rows.span());
  }
  CHECK(dw_rows.Doubles() == dw.Doubles());
  CHECK(db_rows.Doubles() == db.Doubles());
  std::vector<double> with_residual = dx_rows.Doubles();
  for (size_t i = 0; i < res.size(); ++i) with_residual[i] += res[i];
  CHECK(MaxError(with_residual, dx.Doubles(), Largest(dx.Doubles())) <= 1e-6);
}

TEST_CASE("layer_norm: all widths, strides, aliases, residual, partition") {
  testing::ForEachTarget([] {
    for (size_t cols = 1; cols <= 70; ++cols) {
      Check({5, cols, cols % 3, cols % 4, 0.0f});
      if (cols >= 8) Check({2, cols, 1, 0, 30.0f});
    }
    for (const size_t rows : {0, 1, 3, 4, 8, 13}) Check({rows, 48, 0, 0, 0.5f});
    Check({3, 1000, 0, 1, 100.0f});
    Check({4, 768, 0, 0, 0.0f});
  });
}

TEST_CASE("layer_norm: a range beyond the cache has the bits of its rows") {
  testing::ForEachTarget([] {
    constexpr size_t kRows = 1023, kCols = 135;
    std::mt19937 rng(9);
    GuardedMatrix x(kRows, kCols), y(kRows, kCols), row(1, kCols), w(1, kCols), b(1, kCols);
    x.FillNormal(rng);
    w.FillNormal(rng);
    b.FillNormal(rng);
    LayerNormForward(x.view(), w.span(), b.span(), kEps, y.view(), {}, {});
    for (size_t r = 0; r < kRows; ++r) {
      LayerNormForward(x.view().Rows(r, 1), w.span(), b.span(), kEps, row.view(), {}, {});
      REQUIRE(std::equal(row.view().Row(0), row.view().Row(0) + kCols, y.view().Row(r)));
    }
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
