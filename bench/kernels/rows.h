// Matrices and shapes for the benchmarks of row-wise kernels.
#ifndef LANEWISE_BENCH_KERNELS_ROWS_H_
#define LANEWISE_BENCH_KERNELS_ROWS_H_

#include <benchmark/benchmark.h>

#include <cstddef>
#include <random>
#include <span>

#include "bench/kernels/versus.h"
#include "kernels/view.h"

namespace lanewise::bench {

// A matrix without gaps, filled with normal numbers.
class Rows {
 public:
  Rows(size_t rows, size_t cols, float mean = 0.0f)
      : rows_(rows), cols_(cols), data_(AllocateFloats(rows * cols)) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal(mean);
    constexpr size_t kPeriod = 100003;
    for (size_t i = 0; i < rows * cols; ++i) {
      data_[i] = i < kPeriod ? normal(rng) : data_[i - kPeriod];
    }
  }

  kernels::Mat<float> view() { return {data_.get(), rows_, cols_, cols_}; }
  std::span<float> span() { return {data_.get(), rows_ * cols_}; }
  float* data() { return data_.get(); }

 private:
  size_t rows_, cols_;
  AlignedFloats data_;
};

// Widths of the two models' presets, each with rows for a footprint in cache and one beyond the
// caches.
inline void RowShapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "cols"})->UseManualTime();
  for (const size_t cols : {64, 128, 288, 384, 768}) {
    b->Args({static_cast<int64_t>(kCacheFloats / cols), static_cast<int64_t>(cols)});
  }
  b->Args({static_cast<int64_t>(kMemoryFloats / 384), 384});
  b->Args({2048, 384});
}

}  // namespace lanewise::bench

#endif  // LANEWISE_BENCH_KERNELS_ROWS_H_
