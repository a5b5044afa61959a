#include "kernels/math.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/reference/math.h"
#include "tests/support/buffers.h"
#include "tests/support/compare.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Function {
  std::string name;
  void (*kernel)(std::span<const float>, std::span<float>);
  double (*reference)(double);
  double max_ulp;
  float lowest;  // the bound holds from here on
};

const std::vector<Function>& Functions() {
  static const std::vector<Function> functions = {
      {"exp", Exp, reference::Exp<double>, kExpMaxUlp, -kInf},
      {"log", Log, reference::Log<double>, kLogMaxUlp, -kInf},
      {"sigmoid", Sigmoid, reference::Sigmoid<double>, kSigmoidMaxUlp, -kInf},
      {"tanh", Tanh, reference::Tanh<double>, kTanhMaxUlp, -kInf},
      {"silu", Silu, reference::Silu<double>, kSiluMaxUlp, -87.3f},
  };
  return functions;
}

// Error in ULP, where a result below the smallest normal number may also be zero.
double Error(const Function& f, float x, float y) {
  const double expected = f.reference(static_cast<double>(x));
  if (std::fabs(expected) < 0x1p-126) return std::fabs(y) <= 0x1.00001p-126 ? 0.0 : kInf;
  // The last half unit below overflow may round either way.
  if (expected > std::numeric_limits<float>::max()) {
    return y >= std::numeric_limits<float>::max() ? 0.0 : kInf;
  }
  return testing::UlpError(y, expected);
}

TEST_CASE("math: error in ULP over all floats") {
  // Every bit pattern of a stride that is prime, so that all exponents and mantissas have their
  // turn.
  constexpr uint32_t kStride = 4099;
  std::vector<float> x;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += kStride) {
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  }
  // Ordinary values, more densely: an activation is seldom beyond 30.
  for (int i = -300000; i <= 300000; ++i) x.push_back(static_cast<float>(i) * 1.0e-4f);
  std::vector<float> y(x.size());
  testing::ForEachTarget([&] {
    for (const Function& f : Functions()) {
      CAPTURE(f.name);
      f.kernel(x, y);
      double worst = 0.0;
      float worst_x = 0.0f;
      for (size_t i = 0; i < x.size(); ++i) {
        if (x[i] < f.lowest) continue;
        const double error = Error(f, x[i], y[i]);
        if (error > worst) {
          worst = error;
          worst_x = x[i];
        }
      }
      CAPTURE(worst_x);
      CHECK(worst <= f.max_ulp);
      CHECK(worst > 0.2);  // else nothing was measured
    }
  });
}

TEST_CASE("math: limits, infinity and NaN") {
  testing::ForEachTarget([] {
    const std::vector<float> x = {kInf, -kInf, kNaN, 0.0f, -0.0f, 89.0f, -104.0f, 1e30f, -1e30f};
    std::vector<float> y(x.size());
    Exp(x, y);
    CHECK(testing::SameBits<const float, const float>(
        std::vector<float>{kInf, 0.0f, y[2], 1.0f, 1.0f, kInf, 0.0f, kInf, 0.0f}, y));
    CHECK(std::isnan(y[2]));
    Log(x, y);
    CHECK(y[0] == kInf);
    CHECK(std::isnan(y[1]));
    CHECK(std::isnan(y[2]));
    CHECK(y[3] == -kInf);
    CHECK(y[4] == -kInf);
    CHECK(std::isnan(y[6]));
    CHECK(std::isnan(y[8]));
    Sigmoid(x, y);
    CHECK(y[0] == 1.0f);
    CHECK(y[1] == 0.0f);
    CHECK(std::isnan(y[2]));
    CHECK(y[3] == 0.5f);
    CHECK(y[7] == 1.0f);
    CHECK(y[8] == 0.0f);
    Tanh(x, y);
    CHECK(y[0] == 1.0f);
    CHECK(y[1] == -1.0f);
    CHECK(std::isnan(y[2]));
    CHECK(y[3] == 0.0f);
    CHECK(std::signbit(y[4]));
    CHECK(y[7] == 1.0f);
    Silu(x, y);
    CHECK(y[0] == kInf);
    CHECK(std::isnan(y[2]));
    CHECK(y[3] == 0.0f);
    CHECK(y[7] == 1e30f);
    CHECK(y[8] == 0.0f);
  });
}

TEST_CASE("math: sizes, misaligned starts, in place") {
  std::mt19937 rng(1);
  testing::ForEachTarget([&] {
    for (size_t size = 0; size <= 70; ++size) {
      for (const size_t misalign : {0, 1, 5}) {
        testing::GuardedMatrix x(1, size, 0, misalign);
        testing::GuardedMatrix y(1, size, 0, 2 * misalign);
        x.FillNormal(rng);
        for (const Function& f : Functions()) {
          f.kernel(x.span(), y.span());
          CHECK(y.GuardsIntact());
          testing::GuardedMatrix z = x;
          f.kernel(z.span(), z.span());
          CHECK(z.GuardsIntact());
          // The same value at any place gives the same bits.
          for (size_t i = 0; i < size; ++i) {
            float one = 0.0f;
            f.kernel({&x.span()[i], 1}, {&one, 1});
            CHECK(testing::UlpDistance(one, y.span()[i]) == 0);
            CHECK(testing::UlpDistance(one, z.span()[i]) == 0);
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace lanewise::kernels
