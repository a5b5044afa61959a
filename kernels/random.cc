#include "kernels/random.h"

#include <algorithm>
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

// The rest is in double and operation by operation: each is rounded exactly, on every target.
using DD = hn::ScalableTag<double>;
using VD = hn::Vec<DD>;

// Integers below 2^52.
HWY_INLINE VD FromBits(hn::VFromD<hn::RebindToUnsigned<DD>> bits) {
  const DD d;
  const hn::RebindToUnsigned<DD> du;
  const VD exponent = hn::Set(d, 0x1p52);
  return hn::Sub(hn::BitCast(d, hn::Or(bits, hn::BitCast(du, exponent))), exponent);
}

// ln x for normal x > 0, by 2 artanh((m - 1)/(m + 1)) with the mantissa m in [sqrt(1/2), sqrt(2)).
HWY_INLINE VD PortableLog(VD x) {
  const DD d;
  const hn::RebindToUnsigned<DD> du;
  const auto bits = hn::BitCast(du, x);
  const auto mantissa = hn::And(bits, hn::Set(du, 0x000FFFFFFFFFFFFFu));
  const VD one = hn::Set(d, 1.0);
  VD m = hn::Or(hn::BitCast(d, mantissa), one);
  VD power = hn::Sub(FromBits(hn::ShiftRight<52>(bits)), hn::Set(d, 1023.0));
  const auto large = hn::Gt(m, hn::Set(d, 1.4142135623730951));
  m = hn::IfThenElse(large, hn::Mul(m, hn::Set(d, 0.5)), m);
  power = hn::IfThenElse(large, hn::Add(power, one), power);
  const VD f = hn::Div(hn::Sub(m, one), hn::Add(m, one));
  const VD s = hn::Mul(f, f);
  VD sum = hn::Set(d, 1.0 / 17.0);
  for (int k = 15; k >= 1; k -= 2) sum = hn::Add(hn::Mul(sum, s), hn::Set(d, 1.0 / k));
  return hn::Add(hn::Mul(power, hn::Set(d, 0.6931471805599453)),
                 hn::Mul(hn::Mul(hn::Set(d, 2.0), f), sum));
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
HWY_INLINE VD Series(VD s) {
  const DD d;
  VD sum = hn::Set(d, SeriesTerm(kFirst + 14));
  for (int n = kFirst + 12; n >= kFirst; n -= 2) {
    sum = hn::Add(hn::Mul(sum, s), hn::Set(d, SeriesTerm(n)));
  }
  return sum;
}

// cos(2 pi u) for u in [0, 1): by symmetry to an angle in [-pi/4, pi/4] and Taylor's series.
HWY_INLINE VD PortableCosTurns(VD u) {
  const DD d;
  // The nearest multiple of a quarter turn.
  const VD quarter = hn::Floor(hn::Add(hn::Mul(hn::Set(d, 4.0), u), hn::Set(d, 0.5)));
  const VD angle =
      hn::Mul(hn::Sub(u, hn::Mul(hn::Set(d, 0.25), quarter)), hn::Set(d, 6.283185307179586));
  const VD s = hn::Mul(angle, angle);
  const auto first = hn::Eq(quarter, hn::Set(d, 1.0));
  const auto second = hn::Eq(quarter, hn::Set(d, 2.0));
  const auto third = hn::Eq(quarter, hn::Set(d, 3.0));
  const VD value = hn::IfThenElse(hn::Or(first, third), hn::Mul(angle, Series<1>(s)), Series<0>(s));
  return hn::IfThenElse(hn::Or(first, second), hn::Neg(value), value);
}

// One vector of normal numbers from as many pairs of random words.
HWY_INLINE VD Normal(const uint32_t* pairs) {
  const DD d;
  const hn::RebindToUnsigned<DD> du;
  const hn::Repartition<uint32_t, DD> dw;
  const auto pair = hn::BitCast(du, hn::LoadU(dw, pairs));
  const VD unit = hn::Set(d, 0x1p-32);
  const VD first = FromBits(hn::And(pair, hn::Set(du, 0xFFFFFFFFu)));
  const VD u = hn::Mul(hn::Add(first, hn::Set(d, 0.5)), unit);  // in (0, 1)
  const VD radius = hn::Sqrt(hn::Mul(hn::Set(d, -2.0), PortableLog(u)));
  return hn::Mul(radius, PortableCosTurns(hn::Mul(FromBits(hn::ShiftRight<32>(pair)), unit)));
}

void FillNormalTo(const RandomKey& key, uint64_t index, double mean, double stddev, float* y,
                  size_t size) {
  const DD d;
  const hn::Rebind<float, DD> df;
  const size_t lanes = hn::Lanes(d);
  constexpr size_t kBlock = 256;
  uint32_t bits[2 * kBlock] = {};
  for (size_t first = 0; first < size; first += kBlock) {
    const size_t count = std::min(kBlock, size - first);
    FillBitsTo(key, 2 * (index + first), bits, 2 * count);
    for (size_t i = 0; i < count; i += lanes) {
      const VD z = hn::Mul(hn::Set(d, stddev), Normal(bits + 2 * i));
      const auto value = hn::DemoteTo(df, hn::Add(hn::Set(d, mean), z));
      hn::StoreN(value, df, y + first + i, count - i);
    }
  }
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
HWY_EXPORT(FillNormalTo);

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
  HWY_DYNAMIC_DISPATCH(FillNormalTo)(key, index, mean, stddev, y.data(), y.size());
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
