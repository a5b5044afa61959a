#include "kernels/reduce.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/reduce.h"
#include "tests/support/buffers.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using testing::GuardedMatrix;

TEST_CASE("reduce: element-wise functions, all sizes, misaligned, in place") {
  testing::ForEachTarget([] {
    std::mt19937 rng(8);
    for (size_t size = 0; size <= 70; ++size) {
      CAPTURE(size);
      GuardedMatrix a(1, size, 0, size % 3), b(1, size, 0, size % 5), y(1, size, 0, 1);
      a.FillNormal(rng);
      b.FillNormal(rng);
      const auto all = [&](const auto& expected) {
        CHECK(y.GuardsIntact());
        bool equal = true;
        for (size_t i = 0; i < size; ++i) equal = equal && y.span()[i] == expected(i);
        return equal;
      };
      const auto as = a.span();
      const auto bs = b.span();
      Fill(1.5f, y.span());
      CHECK(all([](size_t) { return 1.5f; }));
      Scale(3.0f, as, y.span());
      CHECK(all([&](size_t i) { return 3.0f * as[i]; }));
      Add(as, bs, y.span());
      CHECK(all([&](size_t i) { return as[i] + bs[i]; }));
      Multiply(as, bs, y.span());
      CHECK(all([&](size_t i) { return as[i] * bs[i]; }));
      Multiply(y.span(), bs, y.span());
      CHECK(all([&](size_t i) { return as[i] * bs[i] * bs[i]; }));
      Scale(1.0f, as, y.span());
      AddTo(bs, y.span());
      CHECK(all([&](size_t i) { return as[i] + bs[i]; }));
      Scale(2.0f, y.span(), y.span());
      CHECK(all([&](size_t i) { return 2.0f * (as[i] + bs[i]); }));
      Scale(1.0f, as, y.span());
      AddScaledTo(0.5f, bs, y.span());  // exact product: with and without fused multiply-add
      CHECK(all([&](size_t i) { return as[i] + 0.5f * bs[i]; }));
    }
  });
}

TEST_CASE("reduce: rows in order and in a tree, exactly") {
  testing::ForEachTarget([] {
    std::mt19937 rng(9);
    for (size_t rows = 1; rows <= 21; ++rows) {
      for (const size_t cols : {1, 3, 16, 31, 64, 67}) {
        CAPTURE(rows);
        CAPTURE(cols);
        GuardedMatrix x(rows, cols, rows % 3, cols % 4);
        GuardedMatrix y(1, cols, 0, 1);
        x.FillNormal(rng);
        y.FillNormal(rng);
        GuardedMatrix expected = y;
        reference::AddRows<float>(x.view(), expected.span());
        AddRows(x.view(), y.span());
        CHECK(y.GuardsIntact());
        CHECK(y.Doubles() == expected.Doubles());

        for (size_t c = 0; c < cols; ++c) {
          expected.span()[c] = reference::SumTree<float>(x.view(), c, 0, rows);
        }
        SumRowsTree(x.view(), y.span());
        CHECK(y.GuardsIntact());
        CHECK(y.Doubles() == expected.Doubles());
        GuardedMatrix z = x;
        SumRowsTree(z.view(), z.view().RowSpan(0));  // into its own first row
        bool equal = z.GuardsIntact();
        for (size_t c = 0; c < cols; ++c) equal = equal && z.view().Row(0)[c] == y.span()[c];
        CHECK(equal);
      }
    }
    std::vector<float> y(5, 1.0f);
    AddRows({nullptr, 0, 5, 5}, y);
    CHECK(y[4] == 1.0f);
    SumRowsTree({nullptr, 0, 5, 5}, y);
    CHECK(y[4] == 0.0f);
  });
}

TEST_CASE("reduce: sums in double, NaN and infinity show") {
  testing::ForEachTarget([] {
    std::mt19937 rng(10);
    for (size_t size = 0; size <= 300; size += size < 70 ? 1 : 23) {
      CAPTURE(size);
      GuardedMatrix a(1, size, 0, size % 3), b(1, size, 0, 1);
      a.FillNormal(rng, 0.1f);
      b.FillNormal(rng);
      const std::vector<double> ad = a.Doubles(), bd = b.Doubles(), ones(size, 1.0);
      const auto check = [&](double value, const std::vector<double>& u,
                             const std::vector<double>& v) {
        double norm = 1e-300;
        for (size_t i = 0; i < size; ++i) norm += std::fabs(u[i] * v[i]);
        return std::fabs(value - reference::Dot<double>(u, v)) <= 1e-13 * norm;
      };
      CHECK(check(Sum(a.span()), ad, ones));
      CHECK(check(SumSquares(a.span()), ad, ad));
      CHECK(check(Dot(a.span(), b.span()), ad, bd));
      if (size == 0) continue;
      a.span()[size / 2] = NAN;
      CHECK(std::isnan(Sum(a.span())));
      CHECK(std::isnan(SumSquares(a.span())));
      a.span()[size / 2] = -INFINITY;
      CHECK(Sum(a.span()) == -INFINITY);
      CHECK(SumSquares(a.span()) == INFINITY);
      a.span()[size / 2] = 3e38f;  // its square is finite in double
      CHECK(std::isfinite(SumSquares(a.span())));
    }
  });
}

TEST_CASE("reduce: the bound of long sums of equal terms") {
  testing::ForEachTarget([] {
    constexpr size_t kSize = 1000000;
    const std::vector<float> x(kSize, 1.3f), y(kSize, 1.7f);
    const double bound = std::ldexp(kSize, -53);
    const double square = static_cast<double>(1.3f) * 1.3f, product = 1.3 * 1.7;
    const double exact = static_cast<double>(1.3f) * 1.7f;
    CHECK(std::fabs(SumSquares(x) / kSize - square) <= bound * square);
    CHECK(std::fabs(Dot(x, y) / kSize - exact) <= bound * product);
    CHECK(std::fabs(Sum(x) / kSize - 1.3f) <= bound);
  });
}

}  // namespace
}  // namespace lanewise::kernels
