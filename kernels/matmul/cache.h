// The second-level cache of a core, which blocks of large products are cut for.
#ifndef LANEWISE_KERNELS_MATMUL_CACHE_H_
#define LANEWISE_KERNELS_MATMUL_CACHE_H_

#include <cstddef>

namespace lanewise::kernels::matmul {

// Bytes of it that blocks are cut for, from 256 KiB to 2 MiB; 512 KiB where the CPU does not say.
// Results do not depend on it, scratch memory does.
size_t CacheBytes();

// For tests and benches: another size, or with 0 the CPU's own again. Not between asking for
// scratch memory and its use.
void ForceCacheBytes(size_t bytes);

}  // namespace lanewise::kernels::matmul

#endif  // LANEWISE_KERNELS_MATMUL_CACHE_H_
