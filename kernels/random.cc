#include "kernels/random.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/random.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/random-inl.h"

// The project is compiled without contraction of a * b + c, which FillNormal relies on.

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

void FillBitsTo(const RandomKey& key, uint64_t index, uint32_t* y, size_t size) {
  ForRandomBits(key, index, size, [y](size_t offset, auto bits, size_t count) HWY_ATTR {
    hn::StoreN(bits, PhiloxTag(), y + offset, count);
  });
}

void FillUniformTo(const RandomKey& key, uint64_t index, float low, float high, float* y,
                   size_t size) {
  ForRandomBits(key, index, size, [=](size_t offset, auto bits, size_t count) HWY_ATTR {
    const hn::RebindToFloat<PhiloxTag> d;
    const hn::RebindToSigned<PhiloxTag> di;
    const auto integer = hn::BitCast(di, hn::ShiftRight<8>(bits));
    const auto unit = hn::Mul(hn::ConvertTo(d, integer), hn::Set(d, 0x1p-24f));
    const auto scaled = hn::Mul(unit, hn::Set(d, high - low));
    hn::StoreN(hn::Add(scaled, hn::Set(d, low)), d, y + offset, count);
  });
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {

HWY_EXPORT(FillBitsTo);
HWY_EXPORT(FillUniformTo);

// ln x for normal x > 0, by 2 artanh((m - 1)/(m + 1)) with the mantissa m in [sqrt(1/2), sqrt(2)).
double PortableLog(double x) {
  auto bits = std::bit_cast<uint64_t>(x);
  auto power = static_cast<int>(bits >> 52) - 1023;
  bits = (bits & 0x000FFFFFFFFFFFFFu) | 0x3FF0000000000000u;
  auto m = std::bit_cast<double>(bits);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++power;
  }
  const double f = (m - 1.0) / (m + 1.0);
  const double s = f * f;
  double sum = 1.0 / 17.0;
  for (int k = 15; k >= 1; k -= 2) sum = sum * s + 1.0 / k;
  return static_cast<double>(power) * 0.6931471805599453 + 2.0 * f * sum;
}

// 1/n! with the sign that it has in the series of cosine and sine.
constexpr double SeriesTerm(int n) {
  double value = n / 2 % 2 == 0 ? 1.0 : -1.0;
  for (int k = 2; k <= n; ++k) value /= k;
  return value;
}

// sum_i SeriesTerm(first + 2 i) s^i, eight terms: the cosine from 0, the sine over its angle
// from 1.
template <int kFirst>
double Series(double s) {
  constexpr double kTerms[] = {SeriesTerm(kFirst + 14), SeriesTerm(kFirst + 12),
                               SeriesTerm(kFirst + 10), SeriesTerm(kFirst + 8),
                               SeriesTerm(kFirst + 6),  SeriesTerm(kFirst + 4),
                               SeriesTerm(kFirst + 2),  SeriesTerm(kFirst)};
  double sum = 0.0;
  for (const double term : kTerms) sum = sum * s + term;
  return sum;
}

// cos(2 pi u) for u in [0, 1): by symmetry to an angle in [-pi/4, pi/4] and Taylor's series.
double PortableCosTurns(double u) {
  const auto quarter =
      static_cast<int>(std::floor(4.0 * u + 0.5));  // nearest multiple of a quarter turn
  const double angle = (u - 0.25 * quarter) * 6.283185307179586;
  const double s = angle * angle;
  switch (quarter) {
    case 1:
      return -angle * Series<1>(s);
    case 2:
      return -Series<0>(s);
    case 3:
      return angle * Series<1>(s);
    default:
      return Series<0>(s);
  }
}

}  // namespace

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

uint32_t RandomBits(const RandomKey& key, uint64_t index) {
  const uint64_t block = index / 64 * 16 + index % 16;
  const auto words = Philox4x32(
      {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), key.step, key.stream},
      {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
  return words[index / 16 % 4];
}

void FillBits(const RandomKey& key, uint64_t index, std::span<uint32_t> y) {
  HWY_DYNAMIC_DISPATCH(FillBitsTo)(key, index, y.data(), y.size());
}

void FillUniform(const RandomKey& key, uint64_t index, float low, float high, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(FillUniformTo)(key, index, low, high, y.data(), y.size());
}

void FillNormal(const RandomKey& key, uint64_t index, float mean, float stddev,
                std::span<float> y) {
  constexpr size_t kBlock = 256;
  uint32_t bits[2 * kBlock];
  for (size_t first = 0; first < y.size(); first += kBlock) {
    const size_t count = std::min(kBlock, y.size() - first);
    FillBits(key, 2 * (index + first), {bits, 2 * count});
    for (size_t i = 0; i < count; ++i) {
      const double u = (static_cast<double>(bits[2 * i]) + 0.5) * 0x1p-32;  // in (0, 1)
      const double radius = std::sqrt(-2.0 * PortableLog(u));
      const double z = radius * PortableCosTurns(static_cast<double>(bits[2 * i + 1]) * 0x1p-32);
      y[first + i] =
          static_cast<float>(static_cast<double>(mean) + static_cast<double>(stddev) * z);
    }
  }
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
