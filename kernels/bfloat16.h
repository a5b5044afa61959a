// Conversion between float32 and bf16. Single-threaded; does not allocate.
#ifndef LANEWISE_KERNELS_BFLOAT16_H_
#define LANEWISE_KERNELS_BFLOAT16_H_

#include <span>

#include "kernels/view.h"

namespace lanewise::kernels {

// to[i] = the bf16 nearest to from[i], ties to even; NaN stays NaN. to.size() >= from.size().
void RoundToBFloat16(std::span<const float> from, std::span<BFloat16> to);

// to[i] = from[i]. Exact. to.size() >= from.size().
void WidenBFloat16(std::span<const BFloat16> from, std::span<float> to);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_BFLOAT16_H_
