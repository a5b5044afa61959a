// Matrix product over threads: partition of C, scratch per worker. Same bits for any thread count.
#ifndef LANEWISE_RUNTIME_MATMUL_H_
#define LANEWISE_RUNTIME_MATMUL_H_

#include <cstddef>
#include <span>

#include "kernels/matmul.h"
#include "runtime/parallel.h"

namespace lanewise::runtime {

// Bytes of scratch that Matmul needs for a product of this shape on up to max_workers workers.
size_t MatmulScratchBytes(size_t m, size_t n, size_t k, size_t max_workers);

// kernels::Matmul, cut into ranges that workers take. Small products run on the calling thread.
// scratch.size() >= MatmulScratchBytes(args.m, args.n, args.k, par.max_workers()).
void Matmul(const Parallel& par, const kernels::MatmulArgs& args, std::span<std::byte> scratch);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_MATMUL_H_
