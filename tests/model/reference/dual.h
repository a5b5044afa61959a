// Numbers that carry derivatives: a plain forward pass over them gives the exact derivatives of its
// result in N directions at once, without a step size and without the backward pass that is being
// tested.
#ifndef LANEWISE_TESTS_MODEL_REFERENCE_DUAL_H_
#define LANEWISE_TESTS_MODEL_REFERENCE_DUAL_H_

#include <array>
#include <cmath>
#include <cstddef>

namespace lanewise::testing {

template <size_t N>
struct Dual {
  double v = 0;
  std::array<double, N> d = {};

  Dual() = default;
  Dual(double value)
      : v(value) {}  // NOLINT(google-explicit-constructor): constants mix with variables

  Dual& operator+=(const Dual& b) {
    v += b.v;
    for (size_t i = 0; i < N; ++i) d[i] += b.d[i];
    return *this;
  }
  friend Dual operator+(Dual a, const Dual& b) { return a += b; }
  friend Dual operator-(const Dual& a) { return Chain(a, -a.v, -1); }
  friend Dual operator-(const Dual& a, const Dual& b) { return a + (-b); }
  friend Dual operator*(const Dual& a, const Dual& b) {
    Dual y(a.v * b.v);
    for (size_t i = 0; i < N; ++i) y.d[i] = a.d[i] * b.v + a.v * b.d[i];
    return y;
  }
  friend Dual operator/(const Dual& a, const Dual& b) {
    Dual y(a.v / b.v);
    for (size_t i = 0; i < N; ++i) y.d[i] = (a.d[i] - y.v * b.d[i]) / b.v;
    return y;
  }
  friend bool operator<(const Dual& a, const Dual& b) { return a.v < b.v; }

  // f(a) where f(a.v) = value and f'(a.v) = slope.
  friend Dual Chain(const Dual& a, double value, double slope) {
    Dual y(value);
    for (size_t i = 0; i < N; ++i) y.d[i] = slope * a.d[i];
    return y;
  }
  friend Dual exp(const Dual& a) { return Chain(a, std::exp(a.v), std::exp(a.v)); }
  friend Dual log(const Dual& a) { return Chain(a, std::log(a.v), 1 / a.v); }
  friend Dual sqrt(const Dual& a) { return Chain(a, std::sqrt(a.v), 0.5 / std::sqrt(a.v)); }
};

inline double ValueOf(double x) { return x; }
template <size_t N>
double ValueOf(const Dual<N>& x) {
  return x.v;
}

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_MODEL_REFERENCE_DUAL_H_
