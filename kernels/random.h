// Counter-based random numbers: value number `index` of a stream is a pure function of (key,
// index), so it does not matter who computes it, in which order, or on which CPU. Philox4x32-10
// (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// Word order: group g of 64 values uses counters 16 g .. 16 g + 15; value 64 g + 16 w + l is word w
// of counter 16 g + l. (Vectors of up to 16 lanes then need no shuffle.)
#ifndef LANEWISE_KERNELS_RANDOM_H_
#define LANEWISE_KERNELS_RANDOM_H_

#include <array>
#include <cstdint>
#include <span>

namespace lanewise::kernels {

struct RandomKey {
  uint64_t seed = 0;
  uint32_t stream = 0;  // what for: an initialized tensor, a dropout layer, shuffling, sampling
  uint32_t step = 0;
};

// The Philox4x32-10 block function: four words from a counter and a key.
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// One value of the stream, the same as FillBits gives; for shuffling and sampling.
uint32_t RandomBits(const RandomKey& key, uint64_t index);

// Values index, index + 1, ... of the stream.
void FillBits(const RandomKey& key, uint64_t index, std::span<uint32_t> y);

// low + (high - low) u with u = (bits >> 8) 2^-24, in [0, 1).
void FillUniform(const RandomKey& key, uint64_t index, float low, float high, std::span<float> y);

// Normal numbers by Box-Muller in double with this file's own logarithm and cosine: only operations
// that IEEE 754 rounds exactly, so that every machine starts from the same weights. Value i uses
// bits 2i and 2i + 1.
void FillNormal(const RandomKey& key, uint64_t index, float mean, float stddev, std::span<float> y);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_RANDOM_H_
