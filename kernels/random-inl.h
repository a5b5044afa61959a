// The Philox4x32-10 generator on vectors, for kernels that draw their random bits where they use
// them.
#if defined(LANEWISE_KERNELS_RANDOM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_RANDOM_INL_H_
#undef LANEWISE_KERNELS_RANDOM_INL_H_
#else
#define LANEWISE_KERNELS_RANDOM_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/random.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {

// At most 16 lanes: a group of 64 values is 16 counters times 4 words (random.h).
using PhiloxTag = hwy::HWY_NAMESPACE::CappedTag<uint32_t, 16>;

// One round on the even 32-bit lanes; what the odd lanes hold never matters. As 64-bit lanes, a
// product is high word times 2^32 plus low word, so the low one needs no extraction.
template <class V>
HWY_INLINE void PhiloxRound(PhiloxTag du, uint32_t key0, uint32_t key1, V& c0, V& c1, V& c2,
                            V& c3) {
  namespace hn = hwy::HWY_NAMESPACE;
  const auto product0 = hn::MulEven(c0, hn::Set(du, 0xD2511F53u));
  const auto product1 = hn::MulEven(c2, hn::Set(du, 0xCD9E8D57u));
  const V high0 = hn::BitCast(du, hn::ShiftRight<32>(product0));
  const V high1 = hn::BitCast(du, hn::ShiftRight<32>(product1));
  c0 = hn::Xor3(high1, c1, hn::Set(du, key0));
  c2 = hn::Xor3(high0, c3, hn::Set(du, key1));
  c1 = hn::BitCast(du, product1);
  c3 = hn::BitCast(du, product0);
}

// Ten rounds on two sets of counters at once, for latency: even lanes of a and of b.
template <class V>
HWY_INLINE void PhiloxRounds(PhiloxTag du, const RandomKey& key, V& a0, V& a1, V& a2, V& a3, V& b0,
                             V& b1, V& b2, V& b3) {
  auto key0 = static_cast<uint32_t>(key.seed);
  auto key1 = static_cast<uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    PhiloxRound(du, key0, key1, a0, a1, a2, a3);
    PhiloxRound(du, key0, key1, b0, b1, b2, b3);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// Words 0 to 3 of counters first, first + 1, ..., one a lane. `first` must be a multiple of the
// lanes.
template <class V>
HWY_INLINE void PhiloxWords(PhiloxTag du, const RandomKey& key, uint64_t first, V& w0, V& w1, V& w2,
                            V& w3) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RepartitionToWide<PhiloxTag> dw;
  // Counters of even lanes are in a, of odd lanes in b. No carry: the low bits of `first` are 0.
  V a0 = hn::Iota(du, static_cast<uint32_t>(first));
  V b0 = hn::BitCast(du, hn::ShiftRight<32>(hn::BitCast(dw, a0)));
  V a1 = hn::Set(du, static_cast<uint32_t>(first >> 32));
  V b1 = a1;
  V a2 = hn::Set(du, key.step);
  V b2 = a2;
  V a3 = hn::Set(du, key.stream);
  V b3 = a3;
  PhiloxRounds(du, key, a0, a1, a2, a3, b0, b1, b2, b3);
  const auto weave = [](PhiloxTag tag, V even, V odd) HWY_ATTR {
    const hn::RepartitionToWide<PhiloxTag> wide;
    return hn::OddEven(hn::BitCast(tag, hn::ShiftLeft<32>(hn::BitCast(wide, odd))), even);
  };
  w0 = weave(du, a0, b0);
  w1 = weave(du, a1, b1);
  w2 = weave(du, a2, b2);
  w3 = weave(du, a3, b3);
}

// Calls use(offset, bits, count) for vectors of values index + offset, offset + 1, ... of the
// stream that together are values [index, index + size): count lanes of each, and all of them if
// count is the lanes. `use` sees full vectors in the order of random.h within each group of 64.
template <class Use>
HWY_INLINE void ForRandomBits(const RandomKey& key, uint64_t index, size_t size, const Use& use) {
  namespace hn = hwy::HWY_NAMESPACE;
  const PhiloxTag du;
  using V = hn::Vec<PhiloxTag>;
  const size_t lanes = hn::Lanes(du);
  size_t done = 0;
  while (done < size) {
    const uint64_t group = (index + done) / 64;
    const auto begin = static_cast<size_t>((index + done) % 64);
    const size_t end = HWY_MIN(size_t{64}, begin + (size - done));
    V w0, w1, w2, w3;
    if (begin == 0 && end == 64) {
      for (size_t l = 0; l < 16; l += lanes) {
        PhiloxWords(du, key, group * 16 + l, w0, w1, w2, w3);
        use(done + l, w0, lanes);
        use(done + l + 16, w1, lanes);
        use(done + l + 32, w2, lanes);
        use(done + l + 48, w3, lanes);
      }
    } else {
      HWY_ALIGN uint32_t bits[64];
      for (size_t l = 0; l < 16; l += lanes) {
        PhiloxWords(du, key, group * 16 + l, w0, w1, w2, w3);
        hn::StoreU(w0, du, bits + l);
        hn::StoreU(w1, du, bits + l + 16);
        hn::StoreU(w2, du, bits + l + 32);
        hn::StoreU(w3, du, bits + l + 48);
      }
      for (size_t i = begin; i < end; i += lanes) {
        const size_t count = HWY_MIN(lanes, end - i);
        use(done + i - begin, hn::LoadN(du, bits + i, count), count);
      }
    }
    done += end - begin;
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
