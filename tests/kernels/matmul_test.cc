#include "kernels/matmul.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/matmul_problem.h"
#include "tests/support/compare.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using namespace testing_matmul;  // NOLINT(google-build-using-namespace)

TEST_CASE("Matmul: all forms, sizes around the tiles, every epilogue") {
  const size_t sizes[] = {1,  2,  3,  5,  7,  8,  9,  12, 13, 16, 17,
                          31, 33, 47, 48, 49, 63, 64, 65, 97, 100};
  std::mt19937 random(7);
  testing::ForEachTarget([&] {
    for (const Form form : kForms) {
      for (int round = 0; round < 25; ++round) {
        const auto pick = [&] { return sizes[random() % std::size(sizes)]; };
        const size_t m = pick(), n = pick(), k = pick();
        const auto epilogue = static_cast<MatmulEpilogue>(random() % 4);
        CAPTURE(static_cast<int>(form));
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        Problem p(form, m, n, k, epilogue, random() % 1000);
        CheckAgainstReference(p);
        Problem half(form, m, n, k, epilogue, random() % 1000);
        half.UseHalfWeights();
        CheckAgainstReference(half);
      }
    }
  });
}

TEST_CASE("Matmul: several blocks in every dimension") {
  struct Shape {
    size_t m, n, k;
  };
  const Shape shapes[] = {{1, 300, 1000},  {3, 1000, 770},  {8, 65, 2000}, {9, 129, 900},
                          {17, 1000, 400}, {550, 20, 400},  {100, 8, 500}, {40, 65, 390},
                          {65, 700, 390},  {20, 1500, 385}, {64, 64, 3},   {130, 2, 2000}};
  testing::ForEachTarget([&] {
    for (const Form form : kForms) {
      for (const Shape& s : shapes) {
        CAPTURE(static_cast<int>(form));
        CAPTURE(s.m);
        CAPTURE(s.n);
        CAPTURE(s.k);
        Problem p(form, s.m, s.n, s.k, MatmulEpilogue::kResidual,
                  static_cast<unsigned>(s.m + s.n + s.k));
        CheckAgainstReference(p);
        p.UseHalfWeights();
        CheckAgainstReference(p);
      }
    }
  });
}

TEST_CASE("Matmul: the bound where all terms are equal") {
  testing::ForEachTarget([] {
    constexpr size_t n = 48;
    for (const size_t m : {1, 64}) {
      for (const size_t k : {384, 4096}) {
        for (const bool transposed : {false, true}) {
          CAPTURE(m);
          CAPTURE(k);
          const std::vector<float> a(m * k, 1.3f), b(k * n, 1.7f);
          std::vector<float> c(m * n);
          std::vector<std::byte> scratch(MatmulScratchBytes(m, n, k));
          Matmul({.a = {a.data(), k, 1},
                  .b = {.strided = {b.data(), transposed ? 1 : n, transposed ? k : 1}},
                  .c = c.data(),
                  .c_stride = n,
                  .m = m,
                  .n = n,
                  .k = k},
                 scratch);
          const double expected = static_cast<double>(1.3f) * 1.7f * static_cast<double>(k);
          const double bound = kMatmulTolerance + std::ldexp(static_cast<double>(k), -24);
          CHECK(std::fabs(c[n - 1] - expected) <= bound * expected);
        }
      }
    }
  });
}

TEST_CASE("Matmul: the residual may be C") {
  testing::ForEachTarget([&] {
    for (const size_t m : {1, 20}) {
      Problem p(Form::kNN, m, 50, 900, MatmulEpilogue::kResidual, 3);
      p.args.residual = p.args.c;
      p.args.residual_stride = p.args.c_stride;
      CheckAgainstReference(p);
    }
  });
}

TEST_CASE("Matmul: k = 0 leaves the epilogue alone, empty C is allowed") {
  testing::ForEachTarget([&] {
    for (const Form form : kForms) {
      for (const MatmulEpilogue epilogue : {MatmulEpilogue::kOverwrite, MatmulEpilogue::kBias}) {
        Problem p(form, 10, 11, 0, epilogue, 4);
        CheckAgainstReference(p);
        Problem q(form, 1, 11, 0, epilogue, 4);
        CheckAgainstReference(q);
      }
      Problem none(form, 0, 5, 5, MatmulEpilogue::kOverwrite, 4);
      Run(none.args);
      Problem empty(form, 5, 0, 5, MatmulEpilogue::kOverwrite, 4);
      Run(empty.args);
    }
  });
}

TEST_CASE("Matmul: NaN and infinity reach C, also through a factor of zero") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  testing::ForEachTarget([&] {
    for (const Form form : kForms) {
      for (const size_t m : {1, 4, 20}) {
        for (const float bad : {nan, infinity}) {
          Problem p(form, m, 37, 23, MatmulEpilogue::kOverwrite, 5);
          const MatmulOperand& a = p.args.a;
          const MatmulOperand& b = p.args.b.strided;
          for (size_t i = 0; i < m; ++i) p.a.data[i * a.row_stride + 11 * a.col_stride] = 0.0f;
          p.b.data[11 * b.row_stride + 30 * b.col_stride] = bad;  // 0 * bad = NaN, in column 30
          Run(p.args);
          size_t wrong = 0;
          for (size_t i = 0; i < m; ++i) {
            for (size_t j = 0; j < 37; ++j) {
              wrong += std::isnan(p.args.c[i * p.args.c_stride + j]) != (j == 30) ? 1 : 0;
            }
          }
          CHECK(wrong == 0);
        }
      }
    }
  });
}

TEST_CASE("Matmul: any partition of C gives the same bits") {
  std::mt19937 random(11);
  testing::ForEachTarget([&] {
    const MatmulTile tile = MatmulTileSize();
    for (const Form form : kForms) {
      for (const size_t m : {1, 3, 8, 9, 40, 130}) {
        for (const size_t k : {30, 100, 800}) {
          Problem whole(form, m, 333, k, MatmulEpilogue::kAccumulate, 6);
          Problem parts(form, m, 333, k, MatmulEpilogue::kAccumulate, 6);
          Run(whole.args);
          std::vector<std::byte> scratch(MatmulScratchBytes(m, 333, k), std::byte{0xFF});  // NaN
          for (size_t i = 0; i < m;) {
            const size_t rows = std::min<size_t>(m - i, 1 + random() % 50);
            for (size_t j = 0; j < 333;) {
              const size_t columns = std::min(333 - j, tile.columns * (1 + random() % 3));
              Matmul(parts.args, {i, i + rows, j, j + columns}, scratch);
              j += columns;
            }
            i += rows;
          }
          CHECK(testing::SameBits(std::span(whole.c.memory), std::span(parts.c.memory)));
        }
      }
    }
  });
}

// One or two rows are computed in another order of tiles than more.
TEST_CASE("Matmul: of few rows, each has the same bits alone") {
  testing::ForEachTarget([&] {
    for (const Form form : {Form::kNN, Form::kNT}) {
      for (const size_t m : {2, 3, 7, 16}) {
        for (const auto& [n, k] :
             {std::pair<size_t, size_t>(1, 40), {65, 150}, {333, 200}, {300, 1}}) {
          for (const bool half : {false, true}) {
            CAPTURE(static_cast<int>(form));
            CAPTURE(m);
            CAPTURE(n);
            CAPTURE(k);
            CAPTURE(half);
            Problem together(form, m, n, k, MatmulEpilogue::kResidual, 7);
            Problem alone(form, m, n, k, MatmulEpilogue::kResidual, 7);
            for (Problem* p : {&together, &alone}) {
              for (float& x : p->a.memory) x *= 1.1f;  // sums that are rounded
              p->args.bf16 = half;
              if (half) p->UseHalfWeights();
            }
            Run(together.args);
            const MatmulArgs all = alone.args;
            alone.args.m = 1;
            for (size_t i = 0; i < m; ++i) {
              alone.args.a.data = all.a.data + i * all.a.row_stride;
              alone.args.residual = all.residual + i * all.residual_stride;
              alone.args.c = all.c + i * all.c_stride;
              Run(alone.args);
            }
            CHECK(testing::SameBits(std::span(together.c.memory), std::span(alone.c.memory)));
          }
        }
      }
    }
  });
}

// Bytes of scratch that a product leaves as they were.
size_t UntouchedScratch(const MatmulArgs& args) {
  std::vector<std::byte> scratch(MatmulScratchBytes(args.m, args.n, args.k), std::byte{0xA5});
  Matmul(args, scratch);
  return static_cast<size_t>(std::ranges::count(scratch, std::byte{0xA5}));
}

TEST_CASE("Matmul: a cache of any size gives the same bits in the same scratch, in other blocks") {
  struct Restore {
    ~Restore() { SetMatmulCacheBytes(0); }
  } restore;
  constexpr size_t kSmall = size_t{256} << 10;
  constexpr size_t kLarge = size_t{2} << 20;
  testing::ForEachTarget([&] {
    for (const Form form : kForms) {
      for (const size_t m : {10, 150}) {
        CAPTURE(static_cast<int>(form));
        CAPTURE(m);
        Problem large(form, m, 300, 450, MatmulEpilogue::kResidual, 8);
        Problem small(form, m, 300, 450, MatmulEpilogue::kResidual, 8);
        SetMatmulCacheBytes(kLarge);
        const size_t bytes = MatmulScratchBytes(m, 300, 450);
        const size_t untouched = UntouchedScratch(large.args);
        SetMatmulCacheBytes(kSmall);
        CHECK(MatmulScratchBytes(m, 300, 450) == bytes);
        if (m > kMatmulSkinnyRows) {
          CHECK(UntouchedScratch(small.args) != untouched);
        } else {
          Run(small.args);
        }
        CHECK(testing::SameBits(std::span(large.c.memory), std::span(small.c.memory)));
      }
    }
  });
}

}  // namespace
}  // namespace lanewise::kernels
