// Memory that will be needed soon, fetched line by line while tiles compute.
#ifndef LANEWISE_KERNELS_MATMUL_AHEAD_H_
#define LANEWISE_KERNELS_MATMUL_AHEAD_H_

#include <cstddef>

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

// Rows that packing and the first read of a panel would otherwise wait for. Goes to L2.
struct Ahead {
  const float* data = nullptr;
  size_t stride = 0;  // floats from row to row
  size_t rows = 0;    // rows left
  size_t columns = 0;
  size_t column = 0;

  HWY_INLINE size_t Lines() const { return rows * ((columns + kLineFloats - 1) / kLineFloats); }
  HWY_INLINE bool Done() const { return rows == 0; }
  HWY_INLINE void FetchLine() {
    if (rows == 0) return;
    PrefetchToL2(data + column);
    column += kLineFloats;
    if (column >= columns) {
      column = 0;
      data += stride;
      --rows;
    }
  }
};

}  // namespace lanewise::kernels::matmul

#endif  // LANEWISE_KERNELS_MATMUL_AHEAD_H_
