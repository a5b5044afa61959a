#include "kernels/bfloat16.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kernels/reference/bfloat16.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

// Ties, overflow to infinity, subnormals, zeros, NaN of every kind, and random bits.
std::vector<float> Numbers() {
  std::vector<uint32_t> bits = {0,          0x80000000, 0x3F808000, 0x3F818000, 0x3F808001,
                                0x3F807FFF, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000,
                                0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x00000001, 0x00008000,
                                0x00018000, 0x807FFFFF, 0x7F7F8000, 0x7F7F7FFF};
  std::mt19937 random(3);
  while (bits.size() < 1003) bits.push_back(static_cast<uint32_t>(random()));
  std::vector<float> numbers;
  for (const uint32_t b : bits) numbers.push_back(std::bit_cast<float>(b));
  return numbers;
}

TEST_CASE("bf16: rounds to nearest even, widens exactly, keeps NaN, at every size") {
  const std::vector<float> numbers = Numbers();
  testing::ForEachTarget([&] {
    for (const size_t size : {0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 1003}) {
      CAPTURE(size);
      std::vector<BFloat16> rounded(size + 1, BFloat16{0x1234});
      RoundToBFloat16(std::span(numbers).first(size), std::span(rounded).first(size));
      std::vector<float> wide(size + 1, 5.0F);
      WidenBFloat16(std::span(rounded).first(size), std::span(wide).first(size));
      size_t wrong = 0;
      for (size_t i = 0; i < size; ++i) {
        const BFloat16 expected = reference::Round(numbers[i]);
        wrong += rounded[i].bits == expected.bits ? 0 : 1;
        wrong += std::bit_cast<uint32_t>(wide[i]) == static_cast<uint32_t>(rounded[i].bits) << 16
                     ? 0
                     : 1;
        wrong += std::isnan(numbers[i]) == std::isnan(wide[i]) ? 0 : 1;
      }
      CHECK(wrong == 0);
      CHECK(rounded[size].bits == 0x1234);
      CHECK(wide[size] == 5.0F);
    }
  });
}

}  // namespace
}  // namespace lanewise::kernels
