// What this core can do at most: work without purpose, for the caller to time. Benchmarks run a
// probe before and after what they measure, because the peak of a shared machine moves.
#ifndef LANEWISE_KERNELS_PEAK_H_
#define LANEWISE_KERNELS_PEAK_H_

#include <cstddef>
#include <span>

namespace lanewise::kernels {

// Independent float32 multiply-adds in registers. Returns the number of floating-point operations
// done (two per multiply-add), proportional to `iterations`.
double RunFmaProbe(size_t iterations);

// The same with bf16 dot products (operations counted as multiplications and additions), 0 where
// the SIMD target has no instruction for them.
double RunBf16DotProbe(size_t iterations);

// The same with what multiplies bf16 here (MatmulBf16Unit): AMX tiles, dot products, or RunFmaProbe
// where it is float32 or computed in software.
double RunBf16Probe(size_t iterations);

// Reads `data` once in order. Returns a sum (so that nothing is optimized away).
float RunReadProbe(std::span<const float> data);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_PEAK_H_
