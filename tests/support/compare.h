// Distances between floating-point results.
#ifndef LANEWISE_TESTS_SUPPORT_COMPARE_H_
#define LANEWISE_TESTS_SUPPORT_COMPARE_H_

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace lanewise::testing {

// Number of floats from a to b. NaN is at distance 0 from NaN and infinitely far from all else;
// +0 and -0 are the same.
inline uint64_t UlpDistance(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) {
    return std::isnan(a) && std::isnan(b) ? 0 : std::numeric_limits<uint64_t>::max();
  }
  const auto ordered = [](float x) -> int64_t {
    const auto bits = std::bit_cast<uint32_t>(x);
    const auto magnitude = static_cast<int64_t>(bits & 0x7FFFFFFFu);
    return (bits >> 31) != 0 ? -magnitude : magnitude;
  };
  const int64_t distance = ordered(a) - ordered(b);
  return static_cast<uint64_t>(distance < 0 ? -distance : distance);
}

// Error of x in units of the last place of the float nearest to the exact value `expected`.
inline double UlpError(float x, double expected) {
  if (std::isnan(x) || std::isnan(expected)) {
    return std::isnan(x) && std::isnan(expected) ? 0.0 : std::numeric_limits<double>::infinity();
  }
  const auto nearest = static_cast<float>(expected);
  if (std::isinf(nearest) || std::isinf(x)) {
    return x == nearest ? 0.0 : std::numeric_limits<double>::infinity();
  }
  const float magnitude = std::fabs(nearest);
  const float next = std::nextafter(magnitude, std::numeric_limits<float>::infinity());
  const double ulp = std::isinf(next) ? static_cast<double>(magnitude) -
                                            static_cast<double>(std::nextafter(magnitude, 0.0f))
                                      : static_cast<double>(next) - static_cast<double>(magnitude);
  return std::fabs(static_cast<double>(x) - expected) / ulp;
}

// Bit-for-bit the same (two NaN of different payloads differ).
template <typename T, typename U>
bool SameBits(std::span<T> a, std::span<U> b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i])) return false;
  }
  return true;
}

// max_i |a_i - b_i| / max(norm, tiny): the largest error relative to a norm that the caller chose,
// e.g. sum_k |x_k w_k| for a dot product. Any NaN gives infinity.
template <typename A, typename B>
double MaxErrorRelativeTo(std::span<const A> a, std::span<const B> b, double norm) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double error = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(error <= std::numeric_limits<double>::max())) {
      return std::numeric_limits<double>::infinity();
    }
    largest = std::fmax(largest, error);
  }
  return largest / std::fmax(norm, 1e-30);
}

// The largest error relative to a bound of its own for each result; no bound is below `floor`. Any
// NaN counts as 1e30.
class WorstError {
 public:
  explicit WorstError(double floor = 1e-30) : floor_(floor) {}
  void Add(double actual, double expected, double bound) {
    const double error = std::fabs(actual - expected) / std::max(bound, floor_);
    worst_ = std::max(worst_, std::isnan(error) ? 1e30 : error);
  }
  double value() const { return worst_; }

 private:
  double floor_;
  double worst_ = 0.0;
};

template <typename T>
double L2Norm(std::span<const T> v) {
  double sum = 0.0;
  for (const T x : v) sum += static_cast<double>(x) * static_cast<double>(x);
  return std::sqrt(sum);
}

// ||a - b|| / ||b||, with b the expected value; any NaN gives infinity.
template <typename A, typename B>
double RelativeL2Error(std::span<const A> a, std::span<const B> b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double difference = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  const double error = std::sqrt(difference) / std::fmax(std::sqrt(norm), 1e-30);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_COMPARE_H_
