#include "kernels/cached_attention.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "kernels/bfloat16.h"
#include "kernels/reference/cached_attention.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Shape {
  size_t tokens;
  size_t head_dim;
  size_t group;         // query heads for a key/value head
  size_t kv_heads = 1;  // those of the call; the caches have two more around them
};

struct Problem {
  Problem(const Shape& s, size_t from, size_t at, bool half_caches = false)
      : shape(s), half(half_caches), first(from), base(at), capacity(at + s.tokens + 5) {
    std::mt19937 rng(static_cast<unsigned>(s.tokens * 1009 + s.head_dim * 31 + s.group + at * 77));
    std::normal_distribution<float> normal;
    q.resize(s.tokens * QStride() + 1);
    out.resize(q.size(), kNan);
    k.resize(capacity * Wide());
    v.resize(k.size());
    for (auto* m : {&q, &k, &v}) {
      for (float& x : *m) x = normal(rng);
    }
    // What no token may read.
    for (size_t r = 0; r < capacity; ++r) {
      if (r >= first && r < base + s.tokens) continue;
      for (auto* m : {&k, &v}) std::fill_n(m->data() + r * Wide(), Wide(), kNan);
    }
    if (half) Round();
  }
  // k and v as bf16 caches hold them; call it again after changing them.
  void Round() {
    k16.resize(k.size());
    v16.resize(v.size());
    RoundToBFloat16(k, k16);
    RoundToBFloat16(v, v16);
    WidenBFloat16(k16, k);
    WidenBFloat16(v16, v);
  }
  size_t Heads() const { return shape.group * shape.kv_heads; }
  size_t Wide() const { return (shape.kv_heads + 2) * shape.head_dim; }
  size_t QCols() const { return Heads() * shape.head_dim; }
  size_t QStride() const { return QCols() + 3; }
  template <typename T>
  Mat<const T> Query(const std::vector<T>& m) const {
    return {m.data() + 1, shape.tokens, QCols(), QStride()};
  }
  template <typename T>
  Mat<const T> Cache(const std::vector<T>& m) const {
    return {m.data() + shape.head_dim, capacity, shape.kv_heads * shape.head_dim, Wide()};
  }
  Mat<float> Out() { return {out.data() + 1, shape.tokens, QCols(), QStride()}; }
  std::vector<float> Scratch() const {
    return std::vector<float>(CachedAttentionScratch(shape.tokens, Heads(), shape.head_dim), kNan);
  }
  void Forward(std::span<float> scratch) {
    if (half) {
      CachedAttentionForward(Query(q), Cache(k16), Cache(v16), shape.kv_heads, first, base, Out(),
                             scratch);
    } else {
      CachedAttentionForward(Query(q), Cache(k), Cache(v), shape.kv_heads, first, base, Out(),
                             scratch);
    }
  }
  void Partial(size_t begin, size_t end, Mat<float> part, std::span<float> scratch) {
    if (half) {
      CachedAttentionPartial(Query(q), Cache(k16), Cache(v16), shape.kv_heads, first, base, begin,
                             end, part, scratch);
    } else {
      CachedAttentionPartial(Query(q), Cache(k), Cache(v), shape.kv_heads, first, base, begin, end,
                             part, scratch);
    }
  }

  Shape shape;
  bool half;  // bf16 caches
  size_t first, base, capacity;
  std::vector<float> q, out, k, v;
  std::vector<BFloat16> k16, v16;
};

std::vector<double> Reference(const Problem& p) {
  const std::vector<double> q(p.q.begin(), p.q.end());
  const std::vector<double> k(p.k.begin(), p.k.end());
  const std::vector<double> v(p.v.begin(), p.v.end());
  std::vector<double> out(p.shape.tokens * p.QCols());
  reference::CachedAttentionForward<double>(p.Query(q), p.Cache(k), p.Cache(v), p.shape.kv_heads,
                                            p.first, p.base,
                                            {out.data(), p.shape.tokens, p.QCols(), p.QCols()});
  return out;
}

void CheckOut(Problem& p, const std::vector<double>& expected) {
  double largest = 0.0;
  for (size_t r = p.first; r < p.base + p.shape.tokens; ++r) {
    for (size_t c = 0; c < p.QCols() / p.shape.group; ++c) {
      largest = std::max<double>(largest, std::fabs(p.Cache(p.v).Row(r)[c]));
    }
  }
  double difference = 0.0;
  for (size_t r = 0; r < p.shape.tokens; ++r) {
    for (size_t c = 0; c < p.QCols(); ++c) {
      const double e = expected[r * p.QCols() + c];
      const double error = std::fabs(p.Out().Row(r)[c] - e);
      difference = error <= 1e30 ? std::max(difference, error) : 1e30;
    }
    for (size_t c = p.QCols(); c < p.QStride() && r + 1 < p.shape.tokens; ++c) {
      CHECK(std::isnan(p.Out().Row(r)[c]));
    }
  }
  CHECK(difference <= kCachedAttentionTolerance * largest);
}

void CheckCaches(const Shape& shape, size_t first, size_t base, size_t chunk, bool half) {
  CAPTURE(half);
  CAPTURE(shape.tokens);
  CAPTURE(shape.head_dim);
  CAPTURE(shape.group);
  CAPTURE(shape.kv_heads);
  CAPTURE(first);
  CAPTURE(base);
  Problem p(shape, first, base, half);
  const std::vector<double> expected = Reference(p);
  testing::ForEachTarget([&] {
    std::vector<float> scratch = p.Scratch();
    p.Forward(scratch);
    CheckOut(p, expected);

    std::fill(p.out.begin(), p.out.end(), kNan);
    const size_t chunks = (p.capacity + chunk - 1) / chunk;
    const size_t rows = shape.tokens * p.Heads();
    std::vector<float> parts(chunks * rows * (shape.head_dim + 2), kNan);
    const Mat<float> all = {parts.data(), chunks * rows, shape.head_dim + 2, shape.head_dim + 2};
    for (size_t i = 0; i < chunks; ++i) {
      p.Partial(i * chunk, (i + 1) * chunk, all.Rows(i * rows, rows), scratch);
    }
    CachedAttentionMerge(all, chunks, p.Out());
    CheckOut(p, expected);
  });
}

// In one piece and in chunks of `chunk` cache rows, with caches of float32 and of bf16.
void Check(const Shape& shape, size_t first, size_t base, size_t chunk = 128) {
  for (const bool half : {false, true}) CheckCaches(shape, first, base, chunk, half);
}

TEST_CASE("cached attention: one token, all head widths and cache lengths") {
  for (size_t head_dim : {2, 6, 8, 14, 16, 18, 24, 32, 34, 48, 64, 80, 128, 130}) {
    Check({1, head_dim, 1}, 0, 100);
  }
  for (size_t base : {0, 1, 2, 15, 62, 63, 64, 65, 127, 128, 129, 299}) Check({1, 24, 1}, 0, base);
}

TEST_CASE("cached attention: chunks of tokens") {
  for (size_t tokens : {1, 2, 3, 5, 6, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100}) {
    for (size_t base : {0, 1, 37, 64, 200}) Check({tokens, 16, 1}, 0, base);
  }
  for (size_t head_dim : {2, 24, 48, 64, 80, 128}) Check({20, head_dim, 1}, 0, 90);
}

TEST_CASE("cached attention: several heads") {
  for (size_t group : {1, 2, 3, 4, 7, 8, 70}) {
    for (size_t kv_heads : {1, 2, 5}) {
      for (size_t tokens : {1, 2, 9, 40}) Check({tokens, 24, group, kv_heads}, 0, 77);
    }
  }
}

TEST_CASE("cached attention: a window that starts late") {
  for (size_t first : {1, 30, 63, 64, 65, 100, 140}) {
    Check({1, 24, 1}, first, 150);
    Check({1, 24, 2, 2}, first, 150, 64);
    Check({9, 24, 1}, first, 150);
    Check({40, 16, 3}, first, 150, 32);
    Check({64, 16, 1}, first, first);
  }
}

TEST_CASE("cached attention: the bound where all visible values are equal") {
  testing::ForEachTarget([] {
    constexpr size_t kRows = 32768;
    for (const size_t tokens : {1, 20}) {
      Problem p({tokens, 8, 1}, 0, kRows - tokens);
      std::fill(p.q.begin(), p.q.end(), 0.0f);
      std::fill(p.k.begin(), p.k.end(), 1.0f);
      std::fill(p.v.begin(), p.v.end(), 1.3f);
      std::vector<float> scratch = p.Scratch();
      p.Forward(scratch);
      const double bound = kCachedAttentionTolerance + std::ldexp(kRows, -23);
      CHECK(std::fabs(p.Out().Row(tokens - 1)[3] - 1.3) <= bound * 1.3);
    }
  });
}

TEST_CASE("cached attention: no visible key gives NaN") {
  testing::ForEachTarget([] {
    for (size_t tokens : {1, 20}) {
      Problem p({tokens, 16, 1}, 0, 70);
      p.first = 71;  // token 0 sees nothing, token 1 one row
      std::fill(p.out.begin(), p.out.end(), 0.0f);
      std::vector<float> scratch = p.Scratch();
      p.Forward(scratch);
      CHECK(std::isnan(p.Out().Row(0)[3]));
      if (tokens > 1) CHECK(std::isfinite(p.Out().Row(1)[3]));
    }
  });
}

TEST_CASE("cached attention: NaN and infinity propagate") {
  testing::ForEachTarget([] {
    for (size_t tokens : {1, 20}) {
      for (float bad : {kNan, std::numeric_limits<float>::infinity()}) {
        for (int which = 0; which < 4; ++which) {
          const bool key = which % 2 == 0;
          if (key && !std::isnan(bad)) continue;  // a score of -inf is a probability of 0
          Problem p({tokens, 16, 1}, 0, 70, /*half_caches=*/which >= 2);
          (key ? p.k : p.v)[50 * 48 + 16 + 3] = bad;
          p.Round();
          std::vector<float> scratch = p.Scratch();
          p.Forward(scratch);
          for (size_t r = 0; r < tokens; ++r) CHECK(!std::isfinite(p.Out().Row(r)[3]));
        }
      }
    }
  });
}

}  // namespace
}  // namespace lanewise::kernels
