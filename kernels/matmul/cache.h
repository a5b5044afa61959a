// The second-level cache of a core, which blocks of large products are cut for.
#ifndef LANEWISE_KERNELS_MATMUL_CACHE_H_
#define LANEWISE_KERNELS_MATMUL_CACHE_H_

#include <cstddef>

namespace lanewise::kernels::matmul {

// Larger blocks gain nothing.
inline constexpr size_t kMostCacheBytes = size_t{2} << 20;

// Bytes of it that blocks are cut for: SetMatmulCacheBytes.
size_t CacheBytes();

}  // namespace lanewise::kernels::matmul

#endif  // LANEWISE_KERNELS_MATMUL_CACHE_H_
