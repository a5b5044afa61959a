// A kernel beside the plain loop and beside copying, in turns.
#ifndef LANEWISE_BENCH_KERNELS_VERSUS_H_
#define LANEWISE_BENCH_KERNELS_VERSUS_H_

#include <benchmark/benchmark.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <new>

#include "bench/kernels/baseline_loops.h"

namespace lanewise::bench {

// The three are timed alternately, so that a machine whose speed wanders changes them together.
// Counters:
//   GB_per_second     what the algorithm reads and writes at least, by the kernel's median time
//   vs_loop           median of (time of the plain loop) / (time of the kernel), if there is a loop
//   of_bandwidth      median of (time to read and write as many bytes) / (time of the kernel)
// The probe copies half of the bytes from one array to another, or scales in place if `in_place`.
void RunVersus(benchmark::State& state, double bytes, bool in_place,
               const std::function<void()>& kernel, const std::function<void()>& loop = nullptr);

// Floats from a cache line on, as the arenas of the library are. They are not set to anything.
struct FreeAligned {
  void operator()(float* p) const { ::operator delete[](p, std::align_val_t{128}); }
};
using AlignedFloats = std::unique_ptr<float[], FreeAligned>;
inline AlignedFloats AllocateFloats(size_t size) {
  return AlignedFloats(
      static_cast<float*>(::operator new[](size * sizeof(float), std::align_val_t{128})));
}

// Footprints for benchmarks: within the second-level cache, and beyond all caches.
inline constexpr size_t kCacheFloats = 96 * 1024;
inline constexpr size_t kMemoryFloats = 24 * 1024 * 1024;

}  // namespace lanewise::bench

#endif  // LANEWISE_BENCH_KERNELS_VERSUS_H_
