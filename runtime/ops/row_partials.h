// Backward passes over rows that also sum parameter gradients: fixed blocks of rows, each with
// partial sums of its own, added in order.
#ifndef LANEWISE_RUNTIME_OPS_ROW_PARTIALS_H_
#define LANEWISE_RUNTIME_OPS_ROW_PARTIALS_H_

#include <cstddef>
#include <span>

#include "kernels/reduce.h"
#include "runtime/parallel.h"
#include "runtime/partition.h"

namespace lanewise::runtime {

// Blocks for [rows, cols]; few enough that adding them costs nothing.
inline Pieces PartialBlocks(size_t rows, size_t cols) {
  return CutRows(rows, cols, size_t{1} << 16, /*most=*/32);
}

inline size_t RowPartialsBytes(size_t rows, size_t cols, size_t sums) {
  return PartialBlocks(rows, cols).count * sums * sizeof(float);
}

// Calls body(first_row, row_count, partial) per block with a zeroed partial of `sums` floats, then
// adds the partials in block order to `totals`.
template <typename Body>
void ForRowPartials(const Parallel& parallel, size_t rows, size_t cols, size_t sums,
                    std::span<std::byte> workspace, const Body& body,
                    FunctionRef<void(kernels::Mat<const float>)> add) {
  const Pieces blocks = PartialBlocks(rows, cols);
  auto* partials = reinterpret_cast<float*>(workspace.data());
  parallel.For(blocks.count, [&](size_t block, size_t) {
    const std::span<float> partial(partials + block * sums, sums);
    kernels::Fill(0.0F, partial);
    body(blocks.Begin(block), blocks.Size(block), partial);
  });
  add(kernels::Mat<const float>{partials, blocks.count, sums, sums});
}

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_ROW_PARTIALS_H_
