#include "kernels/random.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "kernels/reference/random.h"
#include "tests/support/compare.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

const RandomKey kKey = {.seed = 0x123456789ABCDEF0u, .stream = 7, .step = 42};

TEST_CASE("random: Philox4x32-10 gives the published answers") {
  using Words = std::array<uint32_t, 4>;
  CHECK(Philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random: vectors draw the same bits as the scalar generator, from any index") {
  testing::ForEachTarget([] {
    for (const uint64_t index : {uint64_t{0}, uint64_t{1}, uint64_t{63}, uint64_t{100},
                                 (uint64_t{1} << 36) - 70, (uint64_t{1} << 40) + 5}) {
      for (const size_t size : {0, 1, 5, 63, 64, 65, 128, 200, 261}) {
        std::vector<uint32_t> bits(size + 1, 0xDEADBEEF);
        FillBits(kKey, index, {bits.data(), size});
        size_t wrong = 0;
        for (size_t i = 0; i < size; ++i) wrong += bits[i] != RandomBits(kKey, index + i);
        CHECK(wrong == 0);
        CHECK(bits[size] == 0xDEADBEEF);
      }
    }
  });
}

TEST_CASE("random: uniform and normal numbers, the same on every target") {
  constexpr size_t kSize = 100000;
  std::vector<float> first_uniform, first_normal;
  testing::ForEachTarget([&] {
    std::vector<float> uniform(kSize), normal(kSize);
    FillUniform(kKey, 3, -2.0f, 6.0f, uniform);
    FillNormal(kKey, 5, 1.0f, 0.5f, normal);
    double worst_uniform = 0.0, worst_normal = 0.0, mean = 0.0, variance = 0.0, fourth = 0.0;
    for (size_t i = 0; i < kSize; ++i) {
      const double u = reference::Uniform<double>(kKey, 3 + i, -2.0, 6.0);
      const double n = reference::Normal<double>(kKey, 5 + i, 1.0, 0.5);
      worst_uniform = std::max(worst_uniform, std::fabs(uniform[i] - u));
      worst_normal = std::max(worst_normal, std::fabs(normal[i] - n));
      const double z = (normal[i] - 1.0) / 0.5;
      mean += z;
      variance += z * z;
      fourth += z * z * z * z;
    }
    CHECK(worst_uniform < 1e-6);
    CHECK(worst_normal < 3e-7);
    CHECK(*std::min_element(uniform.begin(), uniform.end()) >= -2.0f);
    CHECK(*std::max_element(uniform.begin(), uniform.end()) <= 6.0f);
    CHECK(std::fabs(mean / kSize) < 0.015);           // 4.7 standard errors
    CHECK(std::fabs(variance / kSize - 1.0) < 0.02);  // 4.5
    CHECK(std::fabs(fourth / kSize - 3.0) < 0.14);    // 4.5
    if (first_uniform.empty()) {
      first_uniform = uniform;
      first_normal = normal;
    }
    CHECK(testing::SameBits<float, float>(uniform, first_uniform));
    CHECK(testing::SameBits<float, float>(normal, first_normal));
    // In pieces.
    std::vector<float> pieces(kSize);
    FillNormal(kKey, 5, 1.0f, 0.5f, {pieces.data(), 777});
    FillNormal(kKey, 5 + 777, 1.0f, 0.5f, {pieces.data() + 777, kSize - 777});
    CHECK(testing::SameBits<float, float>(pieces, first_normal));
  });
  // Every machine, compiler and target must print these bits: initial weights depend on them.
  uint64_t checksum = 0;
  for (const float x : first_normal) checksum = checksum * 31 + std::bit_cast<uint32_t>(x);
  CHECK(checksum == 13142143568921519840u);
}

TEST_CASE("random: parts of a stream are those of the whole, and end where they should") {
  testing::ForEachTarget([] {
    constexpr size_t kSize = 600;
    std::vector<float> uniform(kSize), normal(kSize);
    FillUniform(kKey, 0, 0.0f, 1.0f, uniform);
    FillNormal(kKey, 0, 0.0f, 1.0f, normal);
    for (const size_t first : {0, 1, 7, 255}) {
      for (const size_t size : {0, 1, 3, 8, 17, 64, 255, 256, 257, 300}) {
        CAPTURE(first);
        CAPTURE(size);
        std::vector<float> u(kSize, 99.0f), n(kSize, 99.0f);
        FillUniform(kKey, first, 0.0f, 1.0f, std::span(u).first(size));
        FillNormal(kKey, first, 0.0f, 1.0f, std::span(n).first(size));
        for (const auto& [part, whole] : {std::pair{&u, &uniform}, std::pair{&n, &normal}}) {
          CHECK(std::equal(part->begin(), part->begin() + size, whole->begin() + first));
          CHECK(std::count(part->begin(), part->end(), 99.0f) ==
                static_cast<std::ptrdiff_t>(kSize - size));
        }
      }
    }
  });
}

TEST_CASE("random: seed, stream, step and index all matter") {
  const uint32_t base = RandomBits(kKey, 9);
  RandomKey key = kKey;
  key.seed ^= uint64_t{1} << 40;
  CHECK(RandomBits(key, 9) != base);
  key = kKey;
  key.stream += 1;
  CHECK(RandomBits(key, 9) != base);
  key = kKey;
  key.step += 1;
  CHECK(RandomBits(key, 9) != base);
  CHECK(RandomBits(kKey, 10) != base);
  CHECK(RandomBits(kKey, 9 + (uint64_t{1} << 38)) != base);
}

}  // namespace
}  // namespace lanewise::kernels
