// What the tests of the two norms share: sizes and inputs, and how a residual adds to dx.
#ifndef LANEWISE_TESTS_KERNELS_NORM_PROBLEM_H_
#define LANEWISE_TESTS_KERNELS_NORM_PROBLEM_H_

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <vector>

#include "tests/support/buffers.h"
#include "tests/support/compare.h"

namespace lanewise::kernels {

struct NormCase {
  size_t rows, cols, gap, misalign;
  float mean;
  float spread = 1.0f;
};

inline void ForEachNormCase(void (*check)(const NormCase&)) {
  for (size_t cols = 1; cols <= 70; ++cols) {
    check({5, cols, cols % 3, cols % 4, 0.0f});
    if (cols >= 8) check({2, cols, 1, 0, 30.0f});
  }
  for (const size_t rows : {0, 1, 3, 4, 8, 13}) check({rows, 48, 0, 0, 0.5f});
  check({3, 1000, 0, 1, 100.0f});
  check({4, 768, 0, 0, 0.0f});
  check({64, 1024, 0, 0, 50.0f});
  check({64, 1024, 0, 0, 1.3f, 0.0f});  // roundings of equal values add up
  // The ends of the range.
  check({3, 48, 0, 0, 0.0f, 1e18f});
  check({3, 1000, 0, 0, 1e17f, 1e17f});
  check({3, 48, 0, 0, 0.0f, 1e-25f});
}

// backward(x, dy, dx, residual) writes the same bits over dy, over x and over the residual.
template <typename Backward>
void CheckBackwardInPlace(const testing::GuardedMatrix& x, const testing::GuardedMatrix& dy,
                          const testing::GuardedMatrix& residual, const testing::GuardedMatrix& dx,
                          Backward backward) {
  testing::GuardedMatrix over_dy = dy, over_x = x, over_residual = residual;
  backward(x.view(), over_dy.view(), over_dy.view(), residual.view());
  backward(over_x.view(), dy.view(), over_x.view(), residual.view());
  backward(x.view(), dy.view(), over_residual.view(), over_residual.view());
  CHECK(over_dy.Doubles() == dx.Doubles());
  CHECK(over_x.Doubles() == dx.Doubles());
  CHECK(over_residual.Doubles() == dx.Doubles());
  CHECK(over_residual.GuardsIntact());
}

// dx with a residual against dx without and what was added, both float.
inline void CheckResidual(const std::vector<double>& with, const std::vector<double>& without,
                          const std::vector<double>& added) {
  testing::WorstError error;
  for (size_t i = 0; i < with.size(); ++i) {
    error.Add(with[i], without[i] + added[i], std::fabs(without[i]) + std::fabs(added[i]));
  }
  CHECK(error.value() <= 1e-7);
}

}  // namespace lanewise::kernels

#endif  // LANEWISE_TESTS_KERNELS_NORM_PROBLEM_H_
