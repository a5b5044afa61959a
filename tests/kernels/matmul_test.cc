#include "kernels/matmul.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/reference/matmul.h"
#include "tests/support/compare.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

constexpr float kGuard = 12345.0f;

enum class Form { kNN, kNT, kTN, kTT, kStrided };
constexpr Form kForms[] = {Form::kNN, Form::kNT, Form::kTN, Form::kTT, Form::kStrided};

// A matrix with a stride and a misaligned start, filled with guards where nothing belongs.
struct Storage {
  std::vector<float> memory;
  size_t stride;
  float* data;

  Storage(size_t rows, size_t cols, size_t padding, size_t offset)
      : memory(offset + rows * (cols + padding) + 64, kGuard),
        stride(cols + padding),
        data(memory.data() + offset) {}
  void Fill(size_t rows, size_t cols, std::mt19937& random) {
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < cols; ++c) data[r * stride + c] = uniform(random);
    }
  }
};

// A product with its memory.
struct Problem {
  Storage a, b, c, r;
  MatmulArgs args;

  Problem(Form form, size_t m, size_t n, size_t k, MatmulEpilogue epilogue, unsigned seed)
      : a(std::max(m, k), 2 * std::max(m, k), seed % 3, seed % 5),
        b(std::max(n, k), 2 * std::max(n, k), seed % 2, seed % 7),
        c(m, n, seed % 4, seed % 3),
        r(m, n, seed % 5, seed % 2) {
    std::mt19937 random(seed);
    a.Fill(std::max(m, k), 2 * std::max(m, k), random);
    b.Fill(std::max(n, k), 2 * std::max(n, k), random);
    c.Fill(m, n, random);
    r.Fill(m, n, random);
    const bool transpose_a = form == Form::kTN || form == Form::kTT;
    const bool transpose_b = form == Form::kNT || form == Form::kTT;
    const size_t step = form == Form::kStrided ? 2 : 1;
    args.a = {a.data, transpose_a ? 1 : a.stride, transpose_a ? a.stride : step};
    args.b.strided = {b.data, transpose_b ? 1 : b.stride, transpose_b ? b.stride : step};
    args.c = c.data;
    args.c_stride = c.stride;
    args.m = m;
    args.n = n;
    args.k = k;
    args.epilogue = epilogue;
    args.residual = r.data;
    args.residual_stride = r.stride;
  }
};

void Run(const MatmulArgs& args) {
  std::vector<std::byte> scratch(MatmulScratchBytes(args.m, args.n, args.k));
  Matmul(args, scratch);
}

// Largest error over all elements relative to their magnitudes; guards beside C must be intact.
void CheckAgainstReference(Problem& p) {
  std::vector<reference::MatmulElement<double>> expected;
  expected.reserve(p.args.m * p.args.n);
  for (size_t i = 0; i < p.args.m; ++i) {
    for (size_t j = 0; j < p.args.n; ++j) {
      expected.push_back(reference::MatmulAt<double>(p.args, i, j));
    }
  }
  const std::vector<float> before = p.c.memory;
  Run(p.args);
  double worst = 0.0;
  for (size_t i = 0; i < p.args.m; ++i) {
    for (size_t j = 0; j < p.args.n; ++j) {
      const auto& e = expected[i * p.args.n + j];
      const double error =
          std::fabs(static_cast<double>(p.args.c[i * p.args.c_stride + j]) - e.value);
      worst = std::max(worst, std::isnan(error) ? 1.0 : error / (e.magnitude + 1e-30));
    }
  }
  CHECK(worst <= kMatmulTolerance);
  for (size_t i = 0; i < p.args.m; ++i) {
    for (size_t j = 0; j < p.args.n; ++j) p.args.c[i * p.args.c_stride + j] = kGuard;
  }
  size_t damaged = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    damaged += before[i] == kGuard && p.c.memory[i] != kGuard ? 1 : 0;
  }
  CHECK(damaged == 0);
}

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
        Problem whole(form, m, 333, 800, MatmulEpilogue::kAccumulate, 6);
        Problem parts(form, m, 333, 800, MatmulEpilogue::kAccumulate, 6);
        Run(whole.args);
        std::vector<std::byte> scratch(MatmulScratchBytes(m, 333, 800));
        for (size_t i = 0; i < m;) {
          const size_t rows = std::min(m - i, 1 + random() % 50);
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
  });
}

}  // namespace
}  // namespace lanewise::kernels
