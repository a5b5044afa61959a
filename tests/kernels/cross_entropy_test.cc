#include "kernels/cross_entropy.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/cross_entropy.h"
#include "tests/support/buffers.h"
#include "tests/support/compare.h"
#include "tests/support/gradient.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using testing::AsMat;
using testing::GuardedMatrix;
using testing::WorstError;

constexpr size_t kRows = 4;
constexpr float kScale = 0.125f;

void Check(size_t cols, float smoothing, float spread, size_t gap, size_t misalign) {
  CAPTURE(cols);
  CAPTURE(smoothing);
  std::mt19937 rng(static_cast<unsigned>(cols));
  GuardedMatrix logits(kRows, cols, gap, misalign);
  logits.FillNormal(rng, 5.0f, spread);
  const std::vector<int32_t> targets = {static_cast<int32_t>(rng() % cols), 0, -1,
                                        static_cast<int32_t>(cols - 1)};
  std::vector<float> loss(kRows), nll(kRows), loss2(kRows), nll2(kRows);
  CrossEntropyForward(logits.view(), targets, smoothing, loss, nll);
  GuardedMatrix gradient = logits;
  CrossEntropyForwardBackward(gradient.view(), targets, smoothing, kScale, loss2, nll2);
  CHECK(gradient.GuardsIntact());
  CHECK(loss == loss2);
  CHECK(nll == nll2);
  CHECK(loss[2] == 0.0f);
  CHECK(nll[2] == 0.0f);

  std::vector<double> z = logits.Doubles();
  std::vector<double> expected_loss(kRows), expected_nll(kRows), expected(z.size());
  reference::CrossEntropyForward<double>(AsMat(z, kRows, cols), targets, smoothing, expected_loss,
                                         expected_nll);
  reference::CrossEntropyBackward<double>(AsMat(z, kRows, cols), targets, smoothing, kScale,
                                          AsMat(expected, kRows, cols));
  const std::vector<double> result = gradient.Doubles();
  for (size_t r = 0; r < kRows; ++r) {
    double norm = 1.0;
    double largest = z[r * cols];
    for (size_t c = 0; c < cols; ++c) {
      norm = std::max(norm, std::fabs(z[r * cols + c]));
      largest = std::max(largest, z[r * cols + c]);
    }
    CHECK(std::fabs(loss[r] - expected_loss[r]) <= kCrossEntropyTolerance * norm);
    CHECK(std::fabs(nll[r] - expected_nll[r]) <= kCrossEntropyTolerance * norm);
    WorstError error(1e-37);
    for (size_t c = 0; c < cols; ++c) {
      const bool target = static_cast<int32_t>(c) == targets[r];
      const double q = (target ? 1.0 - smoothing : 0.0) + smoothing / static_cast<double>(cols);
      const double p = expected[r * cols + c] / kScale + (targets[r] < 0 ? 0.0 : q);
      const size_t i = r * cols + c;
      error.Add(result[i], expected[i], kScale * std::max(p, q) * (1.0 + largest - z[i]));
    }
    CHECK(error.value() <= kCrossEntropyTolerance);
  }
  // Row by row, without the optional outputs: the same bits.
  GuardedMatrix rows = logits;
  for (size_t r = 0; r < kRows; ++r) {
    CrossEntropyForwardBackward(rows.view().Rows(r, 1), {&targets[r], 1}, smoothing, kScale, {},
                                {});
  }
  CHECK(rows.Doubles() == result);
}

TEST_CASE("cross_entropy: all sizes, smoothing, ignored rows") {
  testing::ForEachTarget([] {
    for (size_t cols = 2; cols <= 70; ++cols) {
      Check(cols, 0.0f, 3.0f, cols % 3, cols % 4);
      Check(cols, 0.1f, 3.0f, cols % 2, cols % 5);
    }
    Check(1, 0.1f, 1.0f, 0, 0);
    Check(1000, 0.1f, 10.0f, 0, 1);
    Check(32000, 0.0f, 3.0f, 0, 0);
    Check(32003, 0.2f, 5.0f, 0, 0);
  });
}

TEST_CASE("cross_entropy: the bounds where the logits of a long row are equal") {
  testing::ForEachTarget([] {
    constexpr size_t kCols = 128256;
    const double lanes = static_cast<double>(VectorBytes()) / sizeof(float);
    const double bound = kCrossEntropyTolerance + std::ldexp(kCols / lanes, -23);
    std::vector<float> z(kCols, -1.3f), loss(1), nll(1);
    z[7] = 0.0f;
    const int32_t target = 5;
    CrossEntropyForwardBackward(AsMat(z, 1, kCols), {&target, 1}, 0.1f, 1.0f, loss, nll);
    const double other = std::exp(static_cast<double>(-1.3f));
    const double lse = std::log(1.0 + (kCols - 1) * other);
    CHECK(std::fabs(nll[0] - (lse + 1.3f)) <= bound * 1.3);
    const double mean = -1.3f * (1.0 - 1.0 / kCols);
    CHECK(std::fabs(loss[0] - (lse + 0.9f * 1.3f - 0.1f * mean)) <= bound * 1.3);
    const double p = std::exp(-1.3f - lse);
    CHECK(std::fabs(z[0] - (p - 0.1f / kCols)) <= bound * p * 2.3);
  });
}

TEST_CASE("cross_entropy: huge logits are stable, NaN and infinity show") {
  testing::ForEachTarget([] {
    constexpr size_t kCols = 37;
    std::vector<float> z(4 * kCols, -3e38f);
    z[5] = 1e38f;
    z[kCols + 5] = 3.0f;
    z[2 * kCols + 1] = NAN;
    z[3 * kCols + 1] = INFINITY;
    const std::vector<int32_t> targets = {5, 6, 7, 8};
    std::vector<float> loss(4);
    CrossEntropyForwardBackward(AsMat(z, 4, kCols), targets, 0.0f, 1.0f, loss, {});
    CHECK(loss[0] == 0.0f);
    CHECK(loss[1] == 3e38f);
    CHECK(std::isnan(loss[2]));
    CHECK(!std::isfinite(loss[3]));
    CHECK(z[5] == 0.0f);
    CHECK(z[kCols + 5] == 1.0f);
    CHECK(z[kCols + 6] == -1.0f);
    CHECK(std::isnan(z[2 * kCols]));
    CrossEntropyForward({nullptr, 0, kCols, kCols}, {}, 0.0f, {}, {});
  });
}

TEST_CASE("cross_entropy: the reference gradient is the derivative") {
  std::mt19937 rng(6);
  constexpr size_t kCols = 9;
  std::vector<double> z = GuardedMatrix(kRows, kCols).FillNormal(rng).Doubles();
  std::vector<double> loss(kRows), nll(kRows), gradient(z.size());
  const std::vector<int32_t> targets = {3, -1, 0, 8};
  for (const double smoothing : {0.0, 0.1}) {
    const auto total = [&] {
      reference::CrossEntropyForward<double>(AsMat(z, kRows, kCols), targets, smoothing, loss, nll);
      return 0.25 * (loss[0] + loss[1] + loss[2] + loss[3]);
    };
    reference::CrossEntropyBackward<double>(AsMat(z, kRows, kCols), targets, smoothing, 0.25,
                                            AsMat(gradient, kRows, kCols));
    CHECK(testing::GradientError(z, gradient, total) < 1e-8);
  }
}

}  // namespace
}  // namespace lanewise::kernels
