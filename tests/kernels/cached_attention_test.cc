#include "kernels/cached_attention.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/reference/cached_attention.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A cache of three key/value heads, of which the middle one is used.
struct Problem {
  Problem(size_t n, size_t hd, size_t g, size_t from, size_t at)
      : tokens(n), head_dim(hd), group(g), first(from), base(at), capacity(at + n + 5) {
    std::mt19937 rng(static_cast<unsigned>(n * 1009 + hd * 31 + g + at * 77));
    std::normal_distribution<float> normal;
    q.resize(tokens * QWidth() + 1);
    out.resize(q.size(), kNan);
    k.resize(capacity * 3 * head_dim);
    v.resize(k.size());
    for (auto* m : {&q, &k, &v}) {
      for (float& x : *m) x = normal(rng);
    }
    // What no token may read.
    for (size_t r = 0; r < capacity; ++r) {
      if (r >= first && r < base + tokens) continue;
      for (auto* m : {&k, &v}) std::fill_n(m->data() + r * 3 * head_dim, 3 * head_dim, kNan);
    }
  }
  size_t QWidth() const { return group * head_dim + 3; }
  Mat<const float> Q() const { return {q.data() + 1, tokens, group * head_dim, QWidth()}; }
  Mat<const float> K() const { return {k.data() + head_dim, capacity, head_dim, 3 * head_dim}; }
  Mat<const float> V() const { return {v.data() + head_dim, capacity, head_dim, 3 * head_dim}; }
  Mat<float> Out() { return {out.data() + 1, tokens, group * head_dim, QWidth()}; }

  size_t tokens, head_dim, group, first, base, capacity;
  std::vector<float> q, out, k, v;
};

std::vector<double> Reference(const Problem& p) {
  const std::vector<double> q(p.q.begin(), p.q.end());
  const std::vector<double> k(p.k.begin(), p.k.end());
  const std::vector<double> v(p.v.begin(), p.v.end());
  std::vector<double> out(p.tokens * p.group * p.head_dim);
  const size_t wide = 3 * p.head_dim;
  reference::CachedAttentionForward<double>(
      {q.data() + 1, p.tokens, p.group * p.head_dim, p.QWidth()},
      {k.data() + p.head_dim, p.capacity, p.head_dim, wide},
      {v.data() + p.head_dim, p.capacity, p.head_dim, wide}, p.first, p.base,
      {out.data(), p.tokens, p.group * p.head_dim, p.group * p.head_dim});
  return out;
}

void CheckOut(Problem& p, const std::vector<double>& expected) {
  double largest = 0.0;
  double difference = 0.0;
  for (size_t r = 0; r < p.tokens; ++r) {
    for (size_t c = 0; c < p.group * p.head_dim; ++c) {
      const double e = expected[r * p.group * p.head_dim + c];
      const double error = std::fabs(p.Out().Row(r)[c] - e);
      difference = error <= 1e30 ? std::max(difference, error) : 1e30;
      largest = std::max(largest, std::fabs(e));
    }
    for (size_t c = p.group * p.head_dim; c < p.QWidth() && r + 1 < p.tokens; ++c) {
      CHECK(std::isnan(p.Out().Row(r)[c]));
    }
  }
  CHECK(difference <= kCachedAttentionTolerance * largest);
}

// In one piece and in chunks of `chunk` cache rows.
void Check(size_t tokens, size_t head_dim, size_t group, size_t first, size_t base,
           size_t chunk = 128) {
  CAPTURE(tokens);
  CAPTURE(head_dim);
  CAPTURE(group);
  CAPTURE(first);
  CAPTURE(base);
  Problem p(tokens, head_dim, group, first, base);
  const std::vector<double> expected = Reference(p);
  testing::ForEachTarget([&] {
    std::vector<float> scratch(CachedAttentionScratch(head_dim), kNan);
    CachedAttentionForward(p.Q(), p.K(), p.V(), first, base, p.Out(), scratch);
    CheckOut(p, expected);

    std::fill(p.out.begin(), p.out.end(), kNan);
    const size_t chunks = (p.capacity + chunk - 1) / chunk;
    const size_t rows = tokens * group;
    std::vector<float> parts(chunks * rows * (head_dim + 2), kNan);
    const Mat<float> all = {parts.data(), chunks * rows, head_dim + 2, head_dim + 2};
    for (size_t i = 0; i < chunks; ++i) {
      CachedAttentionPartial(p.Q(), p.K(), p.V(), first, base, i * chunk, (i + 1) * chunk,
                             all.Rows(i * rows, rows), scratch);
    }
    CachedAttentionMerge(all, chunks, p.Out());
    CheckOut(p, expected);
  });
}

TEST_CASE("cached attention: one token, all head widths and cache lengths") {
  for (size_t head_dim : {2, 6, 8, 14, 16, 18, 24, 32, 34, 48, 64, 80, 128, 130}) {
    Check(1, head_dim, 1, 0, 100);
  }
  for (size_t base : {0, 1, 2, 15, 62, 63, 64, 65, 127, 128, 129, 299}) Check(1, 24, 1, 0, base);
}

TEST_CASE("cached attention: chunks of tokens") {
  for (size_t tokens : {1, 2, 3, 5, 6, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100}) {
    for (size_t base : {0, 1, 37, 64, 200}) Check(tokens, 16, 1, 0, base);
  }
  for (size_t head_dim : {2, 24, 48, 64, 80, 128}) Check(20, head_dim, 1, 0, 90);
}

TEST_CASE("cached attention: several query heads for one key/value head") {
  for (size_t group : {2, 3, 4, 7, 8, 70}) {
    for (size_t tokens : {1, 2, 9, 40}) Check(tokens, 24, group, 0, 77);
  }
}

TEST_CASE("cached attention: a window that starts late") {
  for (size_t first : {1, 30, 63, 64, 65, 100, 140}) {
    Check(1, 24, 1, first, 150);
    Check(1, 24, 2, first, 150, 64);
    Check(9, 24, 1, first, 150);
    Check(40, 16, 3, first, 150, 32);
    Check(64, 16, 1, first, first);
  }
}

TEST_CASE("cached attention: NaN and infinity propagate") {
  testing::ForEachTarget([] {
    for (size_t tokens : {1, 20}) {
      for (float bad : {kNan, std::numeric_limits<float>::infinity()}) {
        for (int which = 0; which < 2; ++which) {
          Problem p(tokens, 16, 1, 0, 70);
          if (which == 0 && !std::isnan(bad)) continue;  // a score of -inf is a probability of 0
          (which == 0 ? p.k : p.v)[50 * 48 + 16 + 3] = bad;
          std::vector<float> scratch(CachedAttentionScratch(16));
          CachedAttentionForward(p.Q(), p.K(), p.V(), 0, 70, p.Out(), scratch);
          for (size_t r = 0; r < tokens; ++r) CHECK(!std::isfinite(p.Out().Row(r)[3]));
        }
      }
    }
  });
}

}  // namespace
}  // namespace lanewise::kernels
