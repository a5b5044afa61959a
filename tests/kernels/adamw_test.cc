#include "kernels/adamw.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/adamw.h"
#include "kernels/reference/bfloat16.h"
#include "tests/support/buffers.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using testing::GuardedMatrix;

AdamWStep StepNumber(int step) {
  return {.lr = 3e-3,
          .beta1 = 0.9,
          .beta2 = 0.999,
          .eps = 1e-8,
          .weight_decay = 0.1,
          .bias_correction1 = 1.0 - std::pow(0.9, step),
          .bias_correction2 = 1.0 - std::pow(0.999, step),
          .grad_scale = 0.5};
}

void Check(size_t size, size_t misalign) {
  CAPTURE(size);
  std::mt19937 rng(static_cast<unsigned>(size));
  GuardedMatrix p(1, size, 0, misalign), g(1, size, 0, 1), m(1, size), v(1, size, 0, misalign);
  p.FillNormal(rng);
  m.FillNormal(rng, 0.0f, 0.01f);
  v.FillNormal(rng, 0.0f, 0.01f);
  for (float& x : v.span()) x *= x;
  for (int number = 1; number <= 3; ++number) {
    g.FillNormal(rng, 0.0f, 0.1f);
    const AdamWStep step = StepNumber(number);
    std::vector<double> pd = p.Doubles(), gd = g.Doubles(), md = m.Doubles(), vd = v.Doubles();
    const std::vector<double> g_before = gd;
    reference::AdamWUpdate<double>(step, pd, gd, md, vd);
    // The same in two parts: element-wise means the same bits.
    GuardedMatrix p2 = p, g2 = g, m2 = m, v2 = v, p3 = p, g3 = g, m3 = m, v3 = v;
    AdamWUpdate(step, p.span(), g.span(), m.span(), v.span());
    const size_t cut = size / 3;
    for (const auto& [first, count] : {std::pair{size_t{0}, cut}, std::pair{cut, size - cut}}) {
      AdamWUpdate(step, p2.span().subspan(first, count), g2.span().subspan(first, count),
                  m2.span().subspan(first, count), v2.span().subspan(first, count));
    }
    // And with the copy that is rounded to bf16.
    std::vector<BFloat16> rounded(size + 1, BFloat16{7});
    AdamWUpdate(step, p3.span(), g3.span(), m3.span(), v3.span(), std::span(rounded).first(size));
    CHECK(p3.Doubles() == p.Doubles());
    size_t differing = rounded[size].bits == 7 ? 0 : 1;
    for (size_t i = 0; i < size; ++i) {
      differing += rounded[i].bits == reference::Round(p.span()[i]).bits ? 0 : 1;
    }
    CHECK(differing == 0);
    CHECK(p2.Doubles() == p.Doubles());
    CHECK(v2.Doubles() == v.Doubles());
    for (const GuardedMatrix* x : {&p, &g, &m, &v}) CHECK(x->GuardsIntact());
    double worst = 0.0;
    for (size_t i = 0; i < size; ++i) {
      worst = std::max(worst, std::fabs(p.span()[i] - pd[i]) / (std::fabs(pd[i]) + step.lr));
      worst = std::max(
          worst, std::fabs(m.span()[i] - md[i]) / (std::fabs(md[i]) + std::fabs(g_before[i])));
      worst = std::max(worst, std::fabs(v.span()[i] - vd[i]) / (vd[i] + g_before[i] * g_before[i]));
      CHECK(g.span()[i] == 0.0f);
    }
    CHECK(worst <= kAdamWTolerance);
  }
}

TEST_CASE("adamw: three steps, all sizes, partition") {
  testing::ForEachTarget([] {
    for (size_t size = 0; size <= 67; ++size) Check(size, size % 4);
    Check(5000, 0);
  });
}

TEST_CASE("adamw: tiny gradients, whose squares are lost") {
  testing::ForEachTarget([] {
    for (const float tiny : {1e-16f, 1e-18f, 1e-20f, 1e-22f}) {
      std::vector<float> p(1, 1.0f), g(1, tiny), m(1), v(1);
      AdamWUpdate({}, p, g, m, v);
      const double square = static_cast<double>(tiny) * tiny;
      CHECK(std::fabs(v[0] - 1e-3 * square) <= kAdamWTolerance * (1.001 * square) + 3e-38);
      CHECK(std::fabs(p[0] - 1.0) <= kAdamWTolerance);
    }
  });
}

TEST_CASE("adamw: nothing is written through an empty span") {
  testing::ForEachTarget([] {
    std::vector<float> p(100, 1.0f), g(100, 1.0f), m(100), v(100);
    std::vector<BFloat16> half(100, BFloat16{0x1234});
    AdamWUpdate(StepNumber(1), p, g, m, v, std::span(half).first(0));
    CHECK(std::ranges::all_of(half, [](BFloat16 x) { return x.bits == 0x1234; }));
  });
}

TEST_CASE("adamw: gradients stay when asked, NaN shows, tiny decay is not lost") {
  testing::ForEachTarget([] {
    std::vector<float> p(20, 1.0f), g(20, 0.25f), m(20), v(20);
    AdamWStep step = StepNumber(1);
    step.zero_grads = false;
    g[3] = NAN;
    AdamWUpdate(step, p, g, m, v);
    CHECK(g[0] == 0.25f);
    CHECK(p[3] == 1.0f);  // a parameter never becomes NaN, the moment shows it
    CHECK(std::isnan(m[3]));
    CHECK(std::isfinite(p[4]));

    // What adamw.h says of bad gradients: good ones that follow change nothing.
    std::vector<float> stuck(20, 1.0f), bad(20, 1e20f), m1(20), v1(20);
    AdamWStep plain = StepNumber(1);
    plain.weight_decay = 0.0;
    bad[3] = NAN;
    bad[4] = INFINITY;
    bad[5] = 2e19f;  // halved by grad_scale
    for (int i = 0; i < 2; ++i) {
      AdamWUpdate(plain, stuck, bad, m1, v1);
      for (size_t k = 0; k < 20; ++k) CHECK((stuck[k] == 1.0f) == (k != 5));
      CHECK(std::isnan(v1[3]));
      CHECK(std::isinf(v1[4]));
      CHECK(std::isfinite(v1[5]));
      CHECK(std::isinf(v1[6]));
      std::fill(bad.begin(), bad.end(), 0.1f);
    }

    // 1000 steps of decay alone: (1 - 1e-6)^1000 is 0.9990005; a factor rounded to float gives
    // 0.99905.
    std::vector<float> q(20, 1.0f), zero(20), m2(20), v2(20);
    const AdamWStep decay = {.lr = 1e-4, .weight_decay = 0.01};
    for (int i = 0; i < 1000; ++i) AdamWUpdate(decay, q, zero, m2, v2);
    for (const float x : q) CHECK(std::fabs(x - 0.9990005) < 5e-5);
  });
}

}  // namespace
}  // namespace lanewise::kernels
