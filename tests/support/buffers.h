// Memory for kernel tests: awkward starts and strides, with guards that show reads and writes
// outside.
#ifndef LANEWISE_TESTS_SUPPORT_BUFFERS_H_
#define LANEWISE_TESTS_SUPPORT_BUFFERS_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "kernels/view.h"

namespace lanewise::testing {

// A matrix of floats inside a larger block. Everything around it, and between its rows, is a NaN of
// its own bits: a kernel that computes with it gives NaN, one that writes there is caught by
// GuardsIntact.
class GuardedMatrix {
 public:
  // The first element is `misalign` floats after a vector boundary; rows are `gap` floats apart.
  GuardedMatrix(size_t rows, size_t cols, size_t gap = 0, size_t misalign = 0)
      : rows_(rows),
        cols_(cols),
        stride_(cols + gap),
        memory_(rows * (cols + gap) + misalign + 3 * kMargin, std::bit_cast<float>(kGuard)) {
    const auto address = reinterpret_cast<uintptr_t>(memory_.data()) / sizeof(float);
    start_ = kMargin + (kMargin - address % kMargin) % kMargin + misalign;
  }

  kernels::Mat<float> view() { return {memory_.data() + start_, rows_, cols_, stride_}; }
  kernels::Mat<const float> view() const {
    return {memory_.data() + start_, rows_, cols_, stride_};
  }
  // For a matrix of one row.
  std::span<float> span() { return {memory_.data() + start_, cols_}; }
  std::span<const float> span() const { return {memory_.data() + start_, cols_}; }

  GuardedMatrix& FillNormal(std::mt19937& rng, float mean = 0.0f, float stddev = 1.0f) {
    std::normal_distribution<float> normal(mean, stddev);
    for (size_t r = 0; r < rows_; ++r) {
      for (float& x : view().RowSpan(r)) x = normal(rng);
    }
    return *this;
  }

  bool GuardsIntact() const {
    for (size_t i = 0; i < memory_.size(); ++i) {
      const size_t inside = i - start_;
      const bool element =
          i >= start_ && stride_ != 0 && inside / stride_ < rows_ && inside % stride_ < cols_;
      if (!element && std::bit_cast<uint32_t>(memory_[i]) != kGuard) return false;
    }
    return true;
  }

  // A copy in double, without gaps.
  std::vector<double> Doubles() const {
    std::vector<double> copy;
    for (size_t r = 0; r < rows_; ++r) {
      for (const float x : view().RowSpan(r)) copy.push_back(static_cast<double>(x));
    }
    return copy;
  }

 private:
  static constexpr size_t kMargin = 32;  // floats, at least the widest vector here
  static constexpr uint32_t kGuard = 0x7FC0DEADu;

  size_t rows_, cols_, stride_, start_ = 0;
  std::vector<float> memory_;
};

// A matrix view of a vector without gaps.
template <typename T>
kernels::Mat<T> AsMat(std::vector<T>& v, size_t rows, size_t cols) {
  return {v.data(), rows, cols, cols};
}

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_BUFFERS_H_
