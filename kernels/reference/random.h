// Random streams, one value at a time; the block function is the kernel's own scalar one, which the
// test holds against published answers.
#ifndef LANEWISE_KERNELS_REFERENCE_RANDOM_H_
#define LANEWISE_KERNELS_REFERENCE_RANDOM_H_

#include <cmath>
#include <cstdint>
#include <numbers>

#include "kernels/random.h"

namespace lanewise::kernels::reference {

template <typename T>
T Uniform(const RandomKey& key, uint64_t index, T low, T high) {
  return low + (high - low) * static_cast<T>(RandomBits(key, index) >> 8) / T{16777216};
}

template <typename T>
T Normal(const RandomKey& key, uint64_t index, T mean, T stddev) {
  const T u = (static_cast<T>(RandomBits(key, 2 * index)) + T{0.5}) / T{4294967296};
  const T turns = static_cast<T>(RandomBits(key, 2 * index + 1)) / T{4294967296};
  return mean +
         stddev * std::sqrt(T{-2} * std::log(u)) * std::cos(T{2} * std::numbers::pi_v<T> * turns);
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_RANDOM_H_
