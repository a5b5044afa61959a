// Rows of a table by index, by plain loops.
#ifndef LANEWISE_KERNELS_REFERENCE_EMBEDDING_H_
#define LANEWISE_KERNELS_REFERENCE_EMBEDDING_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/view.h"

namespace lanewise::kernels::reference {

template <typename T>
void EmbeddingForward(Mat<const T> table, std::span<const int32_t> ids, Mat<T> y) {
  for (size_t r = 0; r < y.rows; ++r) {
    for (size_t c = 0; c < y.cols; ++c) y.Row(r)[c] = table.Row(static_cast<size_t>(ids[r]))[c];
  }
}

template <typename T>
void EmbeddingBackward(std::span<const int32_t> ids, Mat<const T> dy, Mat<T> dtable) {
  for (size_t r = 0; r < dy.rows; ++r) {
    for (size_t c = 0; c < dy.cols; ++c) dtable.Row(static_cast<size_t>(ids[r]))[c] += dy.Row(r)[c];
  }
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_EMBEDDING_H_
