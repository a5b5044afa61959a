// Products with both operands rounded to bf16, by every unit on every target; units that this CPU
// does not have run in software.
#include "kernels/matmul_bf16.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/matmul/amx.h"
#include "tests/kernels/matmul_problem.h"
#include "tests/support/compare.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using namespace testing_matmul;  // NOLINT(google-build-using-namespace)

#if defined(__x86_64__) || defined(_M_X64)
constexpr bool kX86 = true;
#else
constexpr bool kX86 = false;
#endif

template <typename Fn>
void ForEachUnit(Fn&& fn) {
  struct Restore {
    ~Restore() { ForceBf16Unit("auto"); }
  } restore;
  testing::ForEachTarget([&] {
    for (const std::string unit : {"float32", "dot", "amx"}) {
      // Tiles go with AVX-512; in software they are slow.
      const bool best = std::string(TargetName()) == SupportedTargetNames().front();
      if (unit == "amx" && (!best || !kX86)) continue;
      CAPTURE(unit);
      REQUIRE(ForceBf16Unit(unit));
      REQUIRE(Name(MatmulBf16Unit()) == unit);
      fn();
    }
  });
}

// The unit itself, which Matmul takes only where it pays.
void RunUnit(const MatmulArgs& args, const MatmulRange& range) {
  std::vector<std::byte> scratch(MatmulScratchBytes(args.m, args.n, args.k, true),
                                 std::byte{0xFF});  // NaN
  if (MatmulBf16Unit() == Bf16Unit::kFloat32) {
    Matmul(args, range, scratch);
  } else {
    MatmulBf16(args, range, scratch.data());
  }
}
void RunUnit(const MatmulArgs& args) { RunUnit(args, {0, args.m, 0, args.n}); }

void CheckUnit(Problem& p, double tolerance = kMatmulTolerance) {
  CheckAgainstReference(p, tolerance, RunUnit);
}

TEST_CASE("bf16 products: all forms, sizes around the tiles, every epilogue") {
  const size_t sizes[] = {17, 18, 23, 31, 32, 33, 47, 48, 49, 63, 64, 65, 70, 97};
  std::mt19937 random(9);
  ForEachUnit([&] {
    for (const Form form : kForms) {
      for (int round = 0; round < 12; ++round) {
        const auto pick = [&] { return sizes[random() % std::size(sizes)]; };
        const size_t m = pick(), n = 1 + random() % 100, k = 1 + random() % 140;
        CAPTURE(static_cast<int>(form));
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        Problem p(form, m, n, k, static_cast<MatmulEpilogue>(random() % 4), random() % 1000);
        p.args.bf16 = true;
        CheckUnit(p);
        p.UseHalfWeights();
        CheckUnit(p);
      }
    }
  });
}

// Weights that are contiguous in k are read in place, by dot products too.
TEST_CASE("bf16 products: few rows against bf16 weights") {
  std::mt19937 random(10);
  ForEachUnit([&] {
    for (const Form form : {Form::kNN, Form::kNT}) {
      for (size_t m = 1; m <= kMatmulSkinnyRows; ++m) {
        const size_t steps[] = {0, 1, 2 + random() % 30, 32 + random() % 300};
        for (const size_t k : steps) {
          const size_t n = 1 + random() % 100;
          CAPTURE(static_cast<int>(form));
          CAPTURE(m);
          CAPTURE(n);
          CAPTURE(k);
          Problem p(form, m, n, k, static_cast<MatmulEpilogue>(random() % 4), random() % 1000);
          p.args.bf16 = true;
          p.UseHalfWeights();
          CheckUnit(p);
        }
      }
    }
  });
}

TEST_CASE("bf16 products: several blocks in every dimension, no steps, few rows") {
  struct Shape {
    size_t m, n, k;
  };
  const Shape shapes[] = {
      {40, 65, 1600}, {20, 700, 800}, {1400, 20, 800}, {20, 30, 0}, {3, 40, 50}};
  ForEachUnit([&] {
    for (const Form form : {Form::kNN, Form::kNT, Form::kTN}) {
      for (const Shape& s : shapes) {
        CAPTURE(s.m);
        CAPTURE(s.n);
        CAPTURE(s.k);
        Problem p(form, s.m, s.n, s.k, MatmulEpilogue::kResidual,
                  static_cast<unsigned>(s.m + s.n + s.k));
        p.args.bf16 = true;
        CheckUnit(p);
      }
    }
  });
}

// Operands that bf16 does not hold are rounded, not cut off: the sums are those of rounded
// operands.
TEST_CASE("bf16 products: operands are rounded to nearest") {
  ForEachUnit([&] {
    if (MatmulBf16Unit() == Bf16Unit::kFloat32) return;  // rounds nothing
    struct Case {
      Form form;
      size_t m;
      bool half_weights;
    };
    const Case cases[] = {{Form::kNN, 37, false}, {Form::kTN, 37, false}, {Form::kTT, 37, false},
                          {Form::kNT, 37, true},  {Form::kNT, 3, true},   {Form::kNT, 16, true}};
    for (const auto& [form, m, half_weights] : cases) {
      Problem p(form, m, 50, 65, MatmulEpilogue::kOverwrite, 3);
      Problem rounded(form, m, 50, 65, MatmulEpilogue::kOverwrite, 3);
      std::mt19937 random(5);
      std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
      for (size_t i = 0; i < p.a.memory.size(); ++i) p.a.memory[i] = uniform(random);
      for (size_t i = 0; i < p.b.memory.size(); ++i) p.b.memory[i] = uniform(random);
      for (auto [from, to] : {std::pair(&p.a, &rounded.a), std::pair(&p.b, &rounded.b)}) {
        std::vector<BFloat16> half(from->memory.size());
        RoundToBFloat16(from->memory, half);
        WidenBFloat16(half, to->memory);
      }
      p.args.bf16 = true;
      if (half_weights) p.UseHalfWeights();
      // Of few rows AMX takes no bf16 weights: Matmul gives them to float32.
      if (m <= kMatmulSkinnyRows && MatmulBf16Unit() == Bf16Unit::kAmx) continue;
      RunUnit(p.args);
      Run(rounded.args);
      double worst = 0;
      for (size_t i = 0; i < m; ++i) {
        for (size_t j = 0; j < 50; ++j) {
          const auto at = [&](const Problem& x) {
            return static_cast<double>(x.args.c[i * x.args.c_stride + j]);
          };
          worst = std::max(worst, std::fabs(at(p) - at(rounded)));
        }
      }
      CHECK(worst < 2e-5);  // cutting off, or not rounding, is a hundred times as far
    }
  });
}

// The error is largest for 1 + 2^-8, halfway between two bf16.
TEST_CASE("bf16 products: the bound of the rounding, for the worst and for any operands") {
  ForEachUnit([&] {
    for (const Form form : {Form::kNN, Form::kNT, Form::kTN}) {
      for (const size_t k : {1, 65, 300}) {
        Problem p(form, 37, 50, k, MatmulEpilogue::kOverwrite, 3);
        p.args.bf16 = true;
        for (Storage* storage : {&p.a, &p.b}) std::ranges::fill(storage->memory, 1.00390625f);
        CheckUnit(p, kMatmulBf16Tolerance);
        std::mt19937 random(5);
        std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
        for (Storage* storage : {&p.a, &p.b}) {
          for (float& x : storage->memory) x = uniform(random);
        }
        CheckUnit(p, kMatmulBf16Tolerance);
      }
    }
  });
}

TEST_CASE("bf16 products: NaN and infinity reach C") {
  ForEachUnit([&] {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      Problem p(Form::kNN, 40, 37, 33, MatmulEpilogue::kOverwrite, 5);
      p.args.bf16 = true;
      for (size_t i = 0; i < 40; ++i) p.a.data[i * p.args.a.row_stride + 32] = 0.0f;
      p.b.data[32 * p.args.b.strided.row_stride + 30] = bad;  // 0 * bad = NaN, in column 30
      RunUnit(p.args);
      size_t wrong = 0;
      for (size_t i = 0; i < 40; ++i) {
        for (size_t j = 0; j < 37; ++j) {
          wrong += std::isnan(p.args.c[i * p.args.c_stride + j]) != (j == 30) ? 1 : 0;
        }
      }
      CHECK(wrong == 0);
    }
  });
}

TEST_CASE("bf16 products: any partition of C gives the same bits") {
  std::mt19937 random(11);
  ForEachUnit([&] {
    for (const Form form : {Form::kNN, Form::kNT, Form::kTN}) {
      for (const size_t m : {3, 16, 40, 130}) {
        Problem whole(form, m, 233, 800, MatmulEpilogue::kAccumulate, 6);
        Problem parts(form, m, 233, 800, MatmulEpilogue::kAccumulate, 6);
        whole.args.bf16 = parts.args.bf16 = true;
        if (m == 16) {
          whole.UseHalfWeights();
          parts.UseHalfWeights();
        }
        RunUnit(whole.args);
        for (size_t i = 0; i < m;) {
          const size_t rows = std::min<size_t>(m - i, 1 + random() % std::min<size_t>(m, 70));
          for (size_t j = 0; j < 233;) {
            const size_t columns = std::min<size_t>(233 - j, 1 + random() % 90);
            RunUnit(parts.args, {i, i + rows, j, j + columns});
            j += columns;
          }
          i += rows;
        }
        CHECK(testing::SameBits(std::span(whole.c.memory), std::span(parts.c.memory)));
      }
    }
  });
}

// 1 + 2^-9 is 1 as bf16.
TEST_CASE("bf16 products: which of them round") {
  ForEachUnit([&] {
    const Bf16Unit unit = MatmulBf16Unit();
    struct Shape {
      size_t m, n, k;
      bool along_k = false;  // bf16 weights, contiguous in k
    };
    const Shape shapes[] = {{64, 64, 64},       {63, 64, 64},       {64, 63, 64},
                            {64, 64, 63},       {40, 40, 40},       {16, 64, 64},
                            {1, 200, 300},      {16, 64, 64, true}, {1, 64, 200, true},
                            {16, 63, 64, true}, {1, 64, 63, true},  {17, 64, 64, true}};
    for (const Shape& s : shapes) {
      CAPTURE(s.m);
      CAPTURE(s.n);
      CAPTURE(s.k);
      const size_t least = std::min({s.m, s.n, s.k});
      const bool few = s.m <= kMatmulSkinnyRows;
      const size_t least_of_weights = std::min(s.n, s.k);
      const bool dot = least >= 64 || (few && s.along_k && least_of_weights >= 64);
      const bool rounds = unit == Bf16Unit::kAmx ? !few : unit == Bf16Unit::kDot && dot;
      Problem p(s.along_k ? Form::kNT : Form::kNN, s.m, s.n, s.k, MatmulEpilogue::kOverwrite, 0);
      p.args.bf16 = true;
      std::ranges::fill(p.a.memory, 1.001953125f);
      std::ranges::fill(p.b.memory, 1.0f);
      if (s.along_k) p.UseHalfWeights();
      Run(p.args);
      const auto steps = static_cast<float>(s.k);
      CHECK(p.args.c[0] == doctest::Approx(rounds ? steps : steps * 1.001953125f).epsilon(1e-6));
    }
  });
}

TEST_CASE("bf16 units: names, and this CPU's own") {
  CHECK_FALSE(ForceBf16Unit("tpu"));
  CHECK(ForceBf16Unit("Float32"));
  CHECK(MatmulBf16Unit() == Bf16Unit::kFloat32);
  CHECK(ForceBf16Unit("AUTO"));
  CHECK(ForceBf16Unit("auto"));
  if (matmul::HasAmx()) {
    CHECK(MatmulBf16Unit() == Bf16Unit::kAmx);
    CHECK(matmul::RunAmxProbe(10) > 0);
  } else {
    MESSAGE("this CPU has no AMX: its tiles were computed in software");
    CHECK(MatmulBf16Unit() != Bf16Unit::kAmx);
  }
  // Also where another target is the best one for float32.
  for (const std::string name : SupportedTargetNames()) {
    if (name == "NEON_BF16") CHECK(MatmulBf16Unit() == Bf16Unit::kDot);
  }
}

}  // namespace
}  // namespace lanewise::kernels
