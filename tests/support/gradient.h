// Gradients against central differences in double.
#ifndef LANEWISE_TESTS_SUPPORT_GRADIENT_H_
#define LANEWISE_TESTS_SUPPORT_GRADIENT_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace lanewise::testing {

// Largest |difference quotient - gradient| over all entries of x, relative to the largest
// |gradient|. f() is the scalar function of the memory of x, which is changed and restored. The
// truncation error of a quotient is about step^2, its rounding error about 1e-16 / step.
template <typename F>
double GradientError(std::span<double> x, std::span<const double> gradient, const F& f,
                     double step = 1e-5) {
  double worst = 0.0;
  double largest = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double saved = x[i];
    x[i] = saved + step;
    const double above = f();
    x[i] = saved - step;
    const double below = f();
    x[i] = saved;
    const double error = std::fabs((above - below) / (2.0 * step) - gradient[i]);
    if (!(error <= 1e300)) return INFINITY;
    worst = std::max(worst, error);
    largest = std::max(largest, std::fabs(gradient[i]));
  }
  return worst / std::max(largest, 1e-30);
}

inline double DotProduct(std::span<const double> a, std::span<const double> b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_GRADIENT_H_
