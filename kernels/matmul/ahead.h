// Memory that will be needed soon, fetched line by line while tiles compute.
#ifndef LANEWISE_KERNELS_MATMUL_AHEAD_H_
#define LANEWISE_KERNELS_MATMUL_AHEAD_H_

#include <cstddef>
#include <cstdint>

#include "hwy/base.h"
#include "hwy/cache_control.h"

namespace lanewise::kernels::matmul {

inline constexpr size_t kLineFloats = 16;

// Asks for a cache line without making room for it in L1.
template <typename T>
HWY_INLINE void PrefetchToL2(const T* p) {
#if HWY_COMPILER_GCC || HWY_COMPILER_CLANG
  __builtin_prefetch(p, 0, 2);
#else
  hwy::Prefetch(p);
#endif
}

// Whether rows that are `stride` floats apart all begin at a multiple of so many floats.
HWY_INLINE bool AreAligned(const float* data, size_t stride, size_t floats) {
  return (reinterpret_cast<uintptr_t>(data) | stride * sizeof(float)) % (floats * sizeof(float)) ==
         0;
}

// Rows that packing and the first read of a panel would otherwise wait for. Goes to L2.
class Ahead {
 public:
  Ahead() = default;
  // `stride`: floats from row to row.
  HWY_INLINE Ahead(const float* data, size_t stride, size_t rows, size_t columns)
      : data_(data),
        stride_(stride),
        rows_(columns == 0 ? 0 : rows),
        columns_(columns),
        // Rows that do not begin with a line may reach into one more.
        end_(columns + (AreAligned(data, stride, kLineFloats) ? 0 : kLineFloats - 1)) {}

  HWY_INLINE size_t Lines() const { return rows_ * ((end_ + kLineFloats - 1) / kLineFloats); }
  HWY_INLINE bool Done() const { return rows_ == 0; }
  // What FetchLine fetches next, unless all is done.
  HWY_INLINE const float* Next() const { return data_ + HWY_MIN(column_, columns_ - 1); }
  HWY_INLINE void FetchLine() {
    if (rows_ == 0) return;
    PrefetchToL2(Next());
    column_ += kLineFloats;
    if (column_ >= end_) {
      column_ = 0;
      data_ += stride_;
      --rows_;
    }
  }

 private:
  const float* data_ = nullptr;
  size_t stride_ = 0;
  size_t rows_ = 0;  // left
  size_t columns_ = 0;
  size_t end_ = 0;
  size_t column_ = 0;
};

}  // namespace lanewise::kernels::matmul

#endif  // LANEWISE_KERNELS_MATMUL_AHEAD_H_
