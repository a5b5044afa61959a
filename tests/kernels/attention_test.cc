#include "kernels/attention.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/reference/attention.h"
#include "tests/support/compare.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

// One sequence with the heads of one key/value head. q, k and v lie in one matrix, as in a model;
// so do their gradients.
template <typename T>
struct Problem {
  Problem(size_t t, size_t hd, size_t g, double spread = 1.0)
      : tokens(t), head_dim(hd), group(g), width((g + 2) * hd + 3) {
    std::mt19937 rng(static_cast<unsigned>(tokens * 1009 + head_dim * 31 + group));
    std::normal_distribution<double> normal;
    qkv.resize(tokens * width + 1);
    dqkv.resize(qkv.size(), std::numeric_limits<T>::quiet_NaN());
    out.resize(tokens * group * head_dim);
    dout.resize(out.size());
    lse.resize(group * tokens);
    delta.resize(lse.size());
    for (T& x : qkv) x = static_cast<T>(static_cast<float>(spread * normal(rng)));
    for (T& x : dout) x = static_cast<T>(static_cast<float>(normal(rng)));
  }
  Mat<T> Columns(std::vector<T>& m, size_t begin, size_t count) {
    return Mat<T>{m.data() + 1, tokens, width, width}.Cols(begin, count);
  }
  Mat<T> Q() { return Columns(qkv, 0, group * head_dim); }
  Mat<T> K() { return Columns(qkv, group * head_dim, head_dim); }
  Mat<T> V() { return Columns(qkv, (group + 1) * head_dim, head_dim); }
  Mat<T> Dq() { return Columns(dqkv, 0, group * head_dim); }
  Mat<T> Dk() { return Columns(dqkv, group * head_dim, head_dim); }
  Mat<T> Dv() { return Columns(dqkv, (group + 1) * head_dim, head_dim); }
  Mat<T> Out() { return {out.data(), tokens, group * head_dim, group * head_dim}; }
  Mat<T> Dout() { return {dout.data(), tokens, group * head_dim, group * head_dim}; }
  Mat<T> Lse() { return {lse.data(), group, tokens, tokens}; }
  Mat<T> Delta() { return {delta.data(), group, tokens, tokens}; }

  size_t tokens, head_dim, group, width;
  std::vector<T> qkv, dqkv, out, dout, lse, delta;
};

template <typename T>
void RunReference(Problem<T>& p) {
  reference::AttentionForward<T>(p.Q(), p.K(), p.V(), p.Out(), p.Lse());
  reference::AttentionBackward<T>(p.Q(), p.K(), p.V(), p.Dout(), p.Dq(), p.Dk(), p.Dv());
}

void RunForward(Problem<float>& p, size_t step) {
  std::vector<float> scratch(AttentionScratch(p.head_dim));
  for (size_t g = 0; g < p.group; ++g) {
    const size_t column = g * p.head_dim;
    for (size_t begin = 0; begin < p.tokens; begin += step) {
      AttentionForward(p.Q().Cols(column, p.head_dim), p.K(), p.V(), begin,
                       std::min(p.tokens, begin + step), p.Out().Cols(column, p.head_dim),
                       p.Lse().RowSpan(g), scratch);
    }
    AttentionDelta(p.Out().Cols(column, p.head_dim), p.Dout().Cols(column, p.head_dim),
                   p.Delta().RowSpan(g));
  }
}

void RunBackward(Problem<float>& p) {
  std::vector<float> scratch(AttentionScratch(p.head_dim));
  AttentionBackward(p.Q(), p.K(), p.V(), p.Lse(), p.Delta(), p.Dout(), p.Dq(), p.Dk(), p.Dv(),
                    scratch);
}

void RunBackwardInParts(Problem<float>& p) {
  std::vector<float> scratch(AttentionScratch(p.head_dim));
  for (size_t begin = 0; begin < p.tokens; begin += kAttentionKeyChunk) {
    AttentionBackwardKeys(p.Q(), p.K(), p.V(), p.Lse(), p.Delta(), p.Dout(), begin,
                          std::min(p.tokens, begin + kAttentionKeyChunk), p.Dk(), p.Dv(), scratch);
  }
  for (size_t g = 0; g < p.group; ++g) {
    const size_t column = g * p.head_dim;
    for (size_t begin = 0; begin < p.tokens; begin += kAttentionQueryTile) {
      AttentionBackwardQueries(p.Q().Cols(column, p.head_dim), p.K(), p.V(), p.Lse().RowSpan(g),
                               p.Delta().RowSpan(g), p.Dout().Cols(column, p.head_dim), begin,
                               std::min(p.tokens, begin + kAttentionQueryTile),
                               p.Dq().Cols(column, p.head_dim), scratch);
    }
  }
}

// What errors are relative to, as attention.h says.
struct Scales {
  double out = 0.0, lse = 0.0, dq = 0.0, dk = 0.0, dv = 0.0;
};

double Norm(const double* x, size_t size) {
  return std::sqrt(std::inner_product(x, x + size, x, 0.0));
}

double Largest(const double* x, size_t size) {
  double largest = 0.0;
  for (size_t i = 0; i < size; ++i) largest = std::max(largest, std::fabs(x[i]));
  return largest;
}

Scales FindScales(Problem<double>& p) {
  const size_t hd = p.head_dim;
  const double root = std::sqrt(static_cast<double>(hd));
  Scales scales;
  double largest_q = 0.0, largest_k = 0.0, largest_v = 0.0, largest_dout = 0.0;
  for (size_t i = 0; i < p.tokens; ++i) {
    scales.out = std::max(scales.out, Largest(p.V().Row(i), hd));
    largest_k = std::max(largest_k, Norm(p.K().Row(i), hd));
    largest_v = std::max(largest_v, Norm(p.V().Row(i), hd));
    for (size_t c = 0; c < p.group * hd; c += hd) {
      largest_q = std::max(largest_q, Norm(p.Q().Row(i) + c, hd));
      largest_dout = std::max(largest_dout, Norm(p.Dout().Row(i) + c, hd));
    }
  }
  scales.lse = 1.0 + largest_q * largest_k / root;
  const double ds = largest_dout * largest_v / root;
  std::vector<double> probabilities, dk(p.tokens * hd), dv(p.tokens * hd);
  for (size_t g = 0; g < p.group; ++g) {
    for (size_t i = 0; i < p.tokens; ++i) {
      const double* const q = p.Q().Row(i) + g * hd;
      const double* const dout = p.Dout().Row(i) + g * hd;
      reference::Probabilities<double>(q, p.K(), 0, i + 1, probabilities);
      for (size_t c = 0; c < hd; ++c) {
        double dq = 0.0;
        for (size_t j = 0; j <= i; ++j) {
          dq += probabilities[j] * ds * std::fabs(p.K().Row(j)[c]);
          dk[j * hd + c] += probabilities[j] * ds * std::fabs(q[c]);
          dv[j * hd + c] += probabilities[j] * std::fabs(dout[c]);
        }
        scales.dq = std::max(scales.dq, dq);
      }
    }
  }
  scales.dk = Largest(dk.data(), dk.size());
  scales.dv = Largest(dv.data(), dv.size());
  return scales;
}

// Largest difference relative to `scale`.
double Error(Mat<const float> got, Mat<const double> expected, double scale) {
  double difference = 0.0;
  for (size_t r = 0; r < got.rows; ++r) {
    for (size_t c = 0; c < got.cols; ++c) {
      const double error = std::fabs(got.Row(r)[c] - expected.Row(r)[c]);
      if (!(error <= 1e30)) return std::numeric_limits<double>::infinity();
      difference = std::max(difference, error);
    }
  }
  return difference / std::max(scale, 1e-30);
}

void CheckGradients(Problem<float>& p, Problem<double>& exact, const Scales& scales) {
  CHECK(Error(p.Dq(), exact.Dq(), scales.dq) <= kAttentionTolerance);
  CHECK(Error(p.Dk(), exact.Dk(), scales.dk) <= kAttentionTolerance);
  CHECK(Error(p.Dv(), exact.Dv(), scales.dv) <= kAttentionTolerance);
  for (size_t r = 0; r < p.tokens; ++r) {
    for (size_t c = (p.group + 2) * p.head_dim; c < p.width && r + 1 < p.tokens; ++c) {
      CHECK(std::isnan(p.dqkv[1 + r * p.width + c]));  // nothing beyond the last column is written
    }
  }
}

void Check(size_t tokens, size_t head_dim, size_t group, double spread = 1.0) {
  CAPTURE(tokens);
  CAPTURE(head_dim);
  CAPTURE(group);
  Problem<double> exact(tokens, head_dim, group, spread);
  RunReference(exact);
  const Scales scales = FindScales(exact);
  testing::ForEachTarget([&] {
    Problem<float> p(tokens, head_dim, group, spread);
    RunForward(p, tokens);
    CHECK(Error(p.Out(), exact.Out(), scales.out) <= kAttentionTolerance);
    CHECK(Error(p.Lse(), exact.Lse(), scales.lse) <= kAttentionTolerance);
    RunBackward(p);
    CheckGradients(p, exact, scales);

    Problem<float> parts(tokens, head_dim, group, spread);
    RunForward(parts, kAttentionQueryTile);
    CHECK(testing::SameBits<float, float>(parts.out, p.out));
    CHECK(testing::SameBits<float, float>(parts.lse, p.lse));
    RunBackwardInParts(parts);
    CheckGradients(parts, exact, scales);
  });
}

TEST_CASE("attention: all head widths") {
  for (size_t head_dim : {2, 4, 6, 8, 10, 14, 16, 18, 24, 30, 32, 34, 48, 64, 66, 80, 128, 130}) {
    Check(70, head_dim, 1);
  }
}

TEST_CASE("attention: odd numbers of tokens") {
  for (size_t tokens : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 300}) {
    Check(tokens, 24, 1);
    Check(tokens, 2, 2);
  }
  for (size_t tokens : {255, 256, 257, 513, 600}) Check(tokens, 16, 1);
}

TEST_CASE("attention: several query heads for one key/value head") {
  for (size_t group : {2, 3, 8}) {
    for (size_t tokens : {1, 5, 64, 300}) Check(tokens, 48, group);
  }
  Check(130, 128, 2);
}

TEST_CASE("attention: sharp and flat distributions") {
  for (double spread : {0.0, 1e-3, 4.0}) Check(150, 32, 1, spread);
}

TEST_CASE("attention: the bounds where the terms of long sums are equal") {
  testing::ForEachTarget([] {
    constexpr size_t kTokens = 4096, kHeadDim = 8;
    const double bound = kAttentionTolerance + std::ldexp(kTokens, -23);
    Problem<float> p(kTokens, kHeadDim, 1);
    std::fill(p.qkv.begin(), p.qkv.end(), 0.0f);
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t c = 0; c < kHeadDim; ++c) {
        p.V().Row(t)[c] = 1.3f;
        p.Dout().Row(t)[c] = 1.3f * static_cast<float>(t + 1);  // all P[i,j] dout_i are 1.3
      }
    }
    RunForward(p, kTokens);
    RunBackward(p);
    double worst = 0.0, worst_dv = 0.0;
    for (size_t t = 0; t < kTokens; ++t) {
      const auto later = static_cast<double>(kTokens - t);
      worst = std::max(worst, std::fabs(p.Out().Row(t)[0] - 1.3) / 1.3);
      worst_dv = std::max(worst_dv, std::fabs(p.Dv().Row(t)[0] - 1.3 * later));
    }
    CHECK(worst <= bound);
    CHECK(worst_dv <= bound * 1.3 * kTokens);
  });
}

// The derivative of sum(dout * out) along each input, by central differences.
TEST_CASE("attention: the reference's gradient against differences in double") {
  for (size_t tokens : {1, 2, 9}) {
    for (size_t head_dim : {2, 6}) {
      for (size_t group : {1, 2}) {
        Problem<double> p(tokens, head_dim, group);
        RunReference(p);
        const std::vector<double> gradient = p.dqkv;
        for (size_t r = 0; r < tokens; ++r) {
          for (size_t c = 0; c < (group + 2) * head_dim; ++c) {
            double& x = p.qkv[1 + r * p.width + c];
            const double saved = x;
            double value[2];
            for (int side = 0; side < 2; ++side) {
              x = saved + (side == 0 ? 1e-5 : -1e-5);
              reference::AttentionForward<double>(p.Q(), p.K(), p.V(), p.Out(), p.Lse());
              value[side] = 0.0;
              for (size_t i = 0; i < p.out.size(); ++i) value[side] += p.out[i] * p.dout[i];
            }
            x = saved;
            const double difference = (value[0] - value[1]) / 2e-5;
            CHECK(gradient[1 + r * p.width + c] == doctest::Approx(difference).epsilon(1e-7));
          }
        }
      }
    }
  }
}

TEST_CASE("attention: later tokens have no influence") {
  testing::ForEachTarget([] {
    Problem<float> p(200, 24, 1);
    Problem<float> changed(200, 24, 1);
    for (size_t r = 101; r < 200; ++r) {
      for (size_t c = 0; c < p.width; ++c) changed.Columns(changed.qkv, c, 1).Row(r)[0] += 1.0f;
    }
    RunForward(p, 200);
    RunForward(changed, 200);
    for (size_t i = 0; i < 101 * p.head_dim; ++i) CHECK(p.out[i] == changed.out[i]);
    CHECK(p.out[101 * p.head_dim] != changed.out[101 * p.head_dim]);
  });
}

TEST_CASE("attention: scores beyond float's exponentials stay exact") {
  testing::ForEachTarget([] {
    Problem<float> p(100, 16, 1, 30.0);
    Problem<double> exact(100, 16, 1, 30.0);
    RunReference(exact);
    RunForward(p, 100);
    // Scores near 1e4 are rounded to 1e-3; what remains is the error of the inner products.
    const Scales scales = FindScales(exact);
    CHECK(Error(p.Out(), exact.Out(), scales.out) <= 2e-3);
    CHECK(Error(p.Lse(), exact.Lse(), scales.lse) <= 1e-6);
  });
}

TEST_CASE("attention: NaN and infinity reach the queries that see them") {
  testing::ForEachTarget([] {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      for (int which = 0; which < 3; ++which) {
        if (which < 2 && !std::isnan(bad)) continue;  // a score of -inf is a probability of 0
        Problem<float> p(150, 16, 1);
        const Mat<float> m = which == 0 ? p.Q() : which == 1 ? p.K() : p.V();
        m.Row(70)[3] = bad;
        RunForward(p, 150);
        RunBackward(p);
        CHECK(!std::isfinite(p.Out().Row(70)[3]));
        if (which > 0) CHECK(!std::isfinite(p.Out().Row(149)[3]));
        CHECK(std::isnan(p.Dk().Row(70)[0]));
        for (size_t r = 0; r < 64; ++r) CHECK(std::isfinite(p.Out().Row(r)[3]));
      }
    }
  });
}

}  // namespace
}  // namespace lanewise::kernels
