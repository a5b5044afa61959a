// bf16 to and from float32, one number at a time.
#ifndef LANEWISE_KERNELS_REFERENCE_BFLOAT16_H_
#define LANEWISE_KERNELS_REFERENCE_BFLOAT16_H_

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/view.h"

namespace lanewise::kernels::reference {

inline float Widen(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

// Of the two bf16 around x the nearer one, of two equally near ones the even one.
inline BFloat16 Round(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const auto below = static_cast<uint16_t>(bits >> 16);  // toward zero
  if (std::isnan(x)) return {static_cast<uint16_t>(below | 0x40)};
  const uint32_t rest = bits & 0xFFFF;
  const bool up = rest > 0x8000 || (rest == 0x8000 && (below & 1) != 0);
  return {static_cast<uint16_t>(below + (up ? 1 : 0))};
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_BFLOAT16_H_
