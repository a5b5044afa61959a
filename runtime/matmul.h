// Matrix product over threads: partition of C, scratch per worker. Same bits for any thread count.
#ifndef LANEWISE_RUNTIME_MATMUL_H_
#define LANEWISE_RUNTIME_MATMUL_H_

#include <cstddef>
#include <span>

#include "kernels/matmul.h"
#include "runtime/parallel.h"
#include "runtime/tensor.h"

namespace lanewise::runtime {

// A weight of a graph as the right operand, as it lies or transposed.
kernels::MatmulWeights AsWeights(const Tensor& w, bool transposed);

// Bytes of scratch that Matmul needs for a product of this shape on up to max_workers workers.
size_t MatmulScratchBytes(size_t m, size_t n, size_t k, size_t max_workers, bool bf16);

// kernels::Matmul, cut into ranges that workers take. Small products run on the calling thread.
// scratch.size() >= MatmulScratchBytes(args.m, args.n, args.k, par.max_workers(), args.bf16).
void Matmul(const Parallel& par, const kernels::MatmulArgs& args, std::span<std::byte> scratch);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_MATMUL_H_
