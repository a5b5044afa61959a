#include "kernels/dropout.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/dropout.h"
#include "tests/support/buffers.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using testing::AsMat;
using testing::GuardedMatrix;

const RandomKey kKey = {.seed = 99, .stream = 3, .step = 12};

TEST_CASE("dropout: the reference's elements, any width, stride and split of rows") {
  testing::ForEachTarget([] {
    std::mt19937 rng(11);
    for (size_t cols = 1; cols <= 131; ++cols) {
      CAPTURE(cols);
      constexpr size_t kRows = 5;
      const float p = 0.3f;
      GuardedMatrix x(kRows, cols, cols % 3, cols % 4), y(kRows, cols, cols % 2, 1);
      x.FillNormal(rng);
      DropoutForward(x.view(), p, kKey, 17, y.view());
      CHECK(y.GuardsIntact());
      std::vector<double> in = x.Doubles(), expected(in.size());
      reference::Dropout<double>(AsMat(in, kRows, cols), p, kKey, 17, AsMat(expected, kRows, cols));
      const std::vector<double> result = y.Doubles();
      double worst = 0.0;
      for (size_t i = 0; i < in.size(); ++i) {
        worst = std::max(
            worst, std::fabs(result[i] - expected[i]) / std::max(std::fabs(expected[i]), 1e-30));
      }
      CHECK(worst < 3e-7);

      // In place and row by row; the backward pass uses the same mask.
      GuardedMatrix z = x;
      DropoutBackward(z.view().Rows(0, 2), p, kKey, 17, z.view().Rows(0, 2));
      for (size_t r = 2; r < kRows; ++r) {
        DropoutBackward(z.view().Rows(r, 1), p, kKey, 17 + r, z.view().Rows(r, 1));
      }
      CHECK(z.GuardsIntact());
      CHECK(z.Doubles() == result);
    }
  });
}

TEST_CASE("dropout: the share that is kept, none dropped at 0, NaN") {
  testing::ForEachTarget([] {
    std::vector<float> x(100000, 1.0f), y(x.size());
    DropoutForward(AsMat(x, 100, 1000), 0.2f, kKey, 0, AsMat(y, 100, 1000));
    const auto kept = x.size() - static_cast<size_t>(std::count(y.begin(), y.end(), 0.0f));
    CHECK(std::fabs(static_cast<double>(kept) - 80000.0) < 570.0);  // 4.5 standard errors
    CHECK(*std::max_element(y.begin(), y.end()) == 1.25f);
    DropoutForward(AsMat(x, 100, 1000), 0.0f, kKey, 0, AsMat(y, 100, 1000));
    CHECK(y == x);
    std::fill(x.begin(), x.end(), NAN);
    DropoutForward(AsMat(x, 100, 1000), 0.2f, kKey, 0, AsMat(y, 100, 1000));
    size_t zeros = 0, nans = 0;
    for (const float v : y) {
      zeros += v == 0.0f;
      nans += std::isnan(v);
    }
    CHECK(nans == kept);
    CHECK(zeros == x.size() - kept);
  });
}

}  // namespace
}  // namespace lanewise::kernels
