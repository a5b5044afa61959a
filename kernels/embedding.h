// Rows of a table by index. Single-threaded; does not allocate.
//
// Ids must be in [0, table.rows): the caller checks. To share the backward pass between threads,
// give each a range of columns (dy.Cols, dtable.Cols): rows are added in order, so the bits do not
// change.
#ifndef LANEWISE_KERNELS_EMBEDDING_H_
#define LANEWISE_KERNELS_EMBEDDING_H_

#include <cstdint>
#include <span>

#include "kernels/view.h"

namespace lanewise::kernels {

// y[r] = table[ids[r]]; y [R,C] is overwritten. Exact.
void EmbeddingForward(Mat<const float> table, std::span<const int32_t> ids, Mat<float> y);
void EmbeddingForward(Mat<const BFloat16> table, std::span<const int32_t> ids, Mat<float> y);

// dtable[ids[r]] += dy[r], r = 0, 1, ... in order; accumulates.
void EmbeddingBackward(std::span<const int32_t> ids, Mat<const float> dy, Mat<float> dtable);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_EMBEDDING_H_
