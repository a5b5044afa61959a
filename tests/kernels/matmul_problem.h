// Random products with their memory, for the tests of all engines of kernels::Matmul.
#ifndef LANEWISE_TESTS_KERNELS_MATMUL_PROBLEM_H_
#define LANEWISE_TESTS_KERNELS_MATMUL_PROBLEM_H_

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <span>
#include <vector>

#include "kernels/bfloat16.h"
#include "kernels/matmul.h"
#include "kernels/reference/matmul.h"

namespace lanewise::kernels::testing_matmul {

inline constexpr float kGuard = 12345.0f;

enum class Form { kNN, kNT, kTN, kTT, kStrided };
inline constexpr Form kForms[] = {Form::kNN, Form::kNT, Form::kTN, Form::kTT, Form::kStrided};

// A matrix with a stride and a misaligned start, filled with guards where nothing belongs.
struct Storage {
  std::vector<float> memory;
  size_t rows, cols;
  size_t stride;
  float* data;

  Storage(size_t row_count, size_t column_count, size_t padding, size_t offset)
      : memory(offset + row_count * (column_count + padding) + 64, kGuard),
        rows(row_count),
        cols(column_count),
        stride(cols + padding),
        data(memory.data() + offset) {}
  // Values that bf16 holds exactly: every engine computes the same product of them.
  void Fill(std::mt19937& random) {
    std::uniform_int_distribution<int> uniform(-255, 255);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < cols; ++c) {
        data[r * stride + c] = static_cast<float>(uniform(random)) / 256.0f;
      }
    }
  }
};

// A product with its memory.
struct Problem {
  Storage a, b, c, r;
  std::vector<BFloat16> half;  // b as bf16
  MatmulArgs args;

  Problem(Form form, size_t m, size_t n, size_t k, MatmulEpilogue epilogue, unsigned seed)
      : Problem(form == Form::kTN || form == Form::kTT, form == Form::kNT || form == Form::kTT,
                form == Form::kStrided ? 2 : 1, m, n, k, epilogue, seed) {}

  // The right operand as bf16 from now on.
  void UseHalfWeights() {
    half.resize(b.memory.size());
    RoundToBFloat16(b.memory, half);
    args.b.bf16 = half.data() + (b.data - b.memory.data());
    args.b.strided.data = nullptr;
  }

 private:
  Problem(bool transpose_a, bool transpose_b, size_t step, size_t m, size_t n, size_t k,
          MatmulEpilogue epilogue, unsigned seed)
      : a(transpose_a ? k : m, (transpose_a ? m : k) * step, seed % 3, seed % 5),
        b(transpose_b ? n : k, (transpose_b ? k : n) * step, seed % 2, seed % 7),
        c(m, n, seed % 4, seed % 3),
        r(m, n, seed % 5, seed % 2) {
    std::mt19937 random(seed);
    for (Storage* storage : {&a, &b, &c, &r}) storage->Fill(random);
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

inline void Run(const MatmulArgs& args) {
  std::vector<std::byte> scratch(MatmulScratchBytes(args.m, args.n, args.k, args.bf16),
                                 std::byte{0xFF});  // NaN
  Matmul(args, scratch);
}

// Largest error over all elements relative to their magnitudes; guards beside C must be intact.
inline void CheckAgainstReference(Problem& p, double tolerance = kMatmulTolerance,
                                  void (*run)(const MatmulArgs&) = Run) {
  std::vector<reference::MatmulElement<double>> expected;
  expected.reserve(p.args.m * p.args.n);
  for (size_t i = 0; i < p.args.m; ++i) {
    for (size_t j = 0; j < p.args.n; ++j) {
      expected.push_back(reference::MatmulAt<double>(p.args, i, j));
    }
  }
  const std::vector<float> before = p.c.memory;
  run(p.args);
  double worst = 0.0;
  for (size_t i = 0; i < p.args.m; ++i) {
    for (size_t j = 0; j < p.args.n; ++j) {
      const auto& e = expected[i * p.args.n + j];
      const double error =
          std::fabs(static_cast<double>(p.args.c[i * p.args.c_stride + j]) - e.value);
      worst = std::max(worst, std::isnan(error) ? 1.0 : error / (e.magnitude + 1e-30));
    }
  }
  CHECK(worst <= tolerance);
  for (size_t i = 0; i < p.args.m; ++i) {
    for (size_t j = 0; j < p.args.n; ++j) p.args.c[i * p.args.c_stride + j] = kGuard;
  }
  size_t damaged = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    damaged += before[i] == kGuard && p.c.memory[i] != kGuard ? 1 : 0;
  }
  CHECK(damaged == 0);
}

}  // namespace lanewise::kernels::testing_matmul

#endif  // LANEWISE_TESTS_KERNELS_MATMUL_PROBLEM_H_
