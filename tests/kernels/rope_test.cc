#include "kernels/rope.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/rope.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

struct Case {
  size_t rows, heads, head_dim, stride, misalign;
  double theta;
  int32_t first;
  size_t table_rows;
};

void Check(const Case& c) {
  CAPTURE(c.head_dim);
  CAPTURE(c.heads);
  CAPTURE(c.misalign);
  std::mt19937 rng(static_cast<unsigned>(c.head_dim + 131 * c.heads));
  std::normal_distribution<float> normal;
  std::vector<float> table(c.table_rows * c.head_dim);
  const Mat<float> table_view = {table.data(), c.table_rows, c.head_dim, c.head_dim};
  RopeTable(c.theta, static_cast<size_t>(c.first), table_view);
  std::vector<int32_t> positions(c.rows);
  for (auto& p : positions) {
    p = c.first + static_cast<int32_t>(rng() % c.table_rows);  // in no order
  }
  std::vector<float> memory(c.rows * c.stride + c.misalign);
  for (float& x : memory) x = normal(rng);
  const std::vector<float> before = memory;
  const Mat<float> x = {memory.data() + c.misalign, c.rows, c.heads * c.head_dim, c.stride};
  std::vector<double> expected(before.begin(), before.end());
  const Mat<double> y = {expected.data() + c.misalign, x.rows, x.cols, x.stride};
  reference::Rope<double>(c.theta, c.head_dim, positions, 1.0, y);

  RopeForward(table_view, c.first, positions, x);
  for (size_t r = 0; r < x.rows; ++r) {
    for (size_t i = 0; i < x.cols; i += 2) {
      const double norm = std::hypot(y.Row(r)[i], y.Row(r)[i + 1]);
      CHECK(std::fabs(x.Row(r)[i] - y.Row(r)[i]) <= kRopeTolerance * norm);
      CHECK(std::fabs(x.Row(r)[i + 1] - y.Row(r)[i + 1]) <= kRopeTolerance * norm);
    }
    for (size_t i = x.cols; i < x.stride && r + 1 < x.rows; ++i) {
      CHECK(x.Row(r)[i] == before[c.misalign + r * c.stride + i]);
    }
  }
  // The gradient of a rotation is its inverse.
  RopeBackward(table_view, c.first, positions, x);
  for (size_t i = 0; i < memory.size(); ++i) {
    CHECK(std::fabs(memory[i] - before[i]) <= 1e-5 * (1.0 + std::fabs(before[i])));
  }
}

TEST_CASE("rope: all head widths, strides, positions from an offset") {
  testing::ForEachTarget([] {
    for (size_t head_dim : {2, 4, 6, 8, 14, 16, 18, 24, 30, 32, 34, 48, 64, 80, 128}) {
      Check({5, 3, head_dim, 3 * head_dim, 0, 10000.0, 0, 40});
      Check({3, 1, head_dim, head_dim + 7, 1, 500000.0, 1000, 9});
      Check({1, 2, head_dim, 2 * head_dim + 1, 3, 10.0, 3, 1});
    }
  });
}

TEST_CASE("rope: a table from an offset holds the rows of the whole table") {
  std::vector<float> whole(100 * 6);
  std::vector<float> part(7 * 6);
  RopeTable(10000.0, 0, {whole.data(), 100, 6, 6});
  RopeTable(10000.0, 93, {part.data(), 7, 6, 6});
  for (size_t i = 0; i < part.size(); ++i) CHECK(part[i] == whole[93 * 6 + i]);
  CHECK(whole[0] == 1.0f);
  CHECK(whole[1] == 0.0f);
  CHECK(whole[99 * 6 + 3] == static_cast<float>(std::sin(99.0 * std::pow(10000.0, -1.0 / 3.0))));
}

TEST_CASE("rope: no rows") {
  std::vector<float> table(8, 0.0f);
  RopeForward({table.data(), 1, 8, 8}, 0, {}, {nullptr, 0, 16, 16});
}

}  // namespace
}  // namespace lanewise::kernels
