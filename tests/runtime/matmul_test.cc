// Products over threads: the grid changes with the threads, the bits do not.
#include "runtime/matmul.h"

#include <doctest/doctest.h>

#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include "kernels/matmul.h"
#include "runtime/parallel.h"

namespace lanewise::runtime {
namespace {

// The first case: the runtime sets the size once in a process.
TEST_CASE("a cache size that was set before the first product stays") {
  kernels::SetMatmulCacheBytes(size_t{256} << 10);
  MatmulScratchBytes(64, 64, 64, 1, false);
  CHECK(kernels::MatmulCacheBytes() == size_t{256} << 10);
  kernels::SetMatmulCacheBytes(0);
}

struct Shape {
  bool transposed_a;  // as in a weight gradient
  size_t m, n, k;
};

std::vector<float> Product(const Shape& s, bool bf16, size_t threads) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> a(s.m * s.k), b(s.k * s.n), c(s.m * s.n, 0.5f);
  for (float& x : a) x = uniform(random);
  for (float& x : b) x = uniform(random);
  const Scheduler scheduler(threads);
  const Parallel parallel = scheduler.All();
  const size_t bytes = MatmulScratchBytes(s.m, s.n, s.k, parallel.max_workers(), bf16);
  std::vector<std::byte> scratch(bytes, std::byte{0xFF});  // NaN
  Matmul(parallel,
         {.a = {a.data(), s.transposed_a ? 1 : s.k, s.transposed_a ? s.m : 1},
          .b = {.strided = {b.data(), s.n, 1}},
          .c = c.data(),
          .c_stride = s.n,
          .m = s.m,
          .n = s.n,
          .k = s.k,
          .epilogue = kernels::MatmulEpilogue::kAccumulate,
          .bf16 = bf16},
         scratch);
  return c;
}

TEST_CASE("matmul: the same bits for 1, 2, 3 and 8 threads, float32 and bf16 by every unit") {
  struct Restore {
    ~Restore() { kernels::ForceBf16Unit("auto"); }
  } restore;
  const Shape shapes[] = {{false, 200, 300, 400}, {true, 128, 128, 500}, {false, 900, 40, 300},
                          {true, 65, 700, 130},   {false, 5, 900, 1100}, {false, 3, 7, 5}};
  for (const std::string unit : {"none", "float32", "dot", "amx"}) {
    CAPTURE(unit);
    const bool bf16 = unit != "none";
    if (bf16) REQUIRE(kernels::ForceBf16Unit(unit));
    for (const Shape& s : shapes) {
      CAPTURE(s.m);
      CAPTURE(s.n);
      CAPTURE(s.k);
      const std::vector<float> expected = Product(s, bf16, 1);
      for (const size_t threads : {2, 3, 8}) {
        CAPTURE(threads);
        CHECK(Product(s, bf16, threads) == expected);
      }
    }
  }
}

}  // namespace
}  // namespace lanewise::runtime
