// Dropout by plain loops.
#ifndef LANEWISE_KERNELS_REFERENCE_DROPOUT_H_
#define LANEWISE_KERNELS_REFERENCE_DROPOUT_H_

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/random.h"
#include "kernels/view.h"

namespace lanewise::kernels::reference {

template <typename T>
void Dropout(Mat<const T> x, double p, const RandomKey& key, uint64_t first_row, Mat<T> y) {
  for (size_t r = 0; r < x.rows; ++r) {
    for (size_t c = 0; c < x.cols; ++c) {
      const uint32_t bits = RandomBits(key, (first_row + r) * x.cols + c);
      const bool keep = static_cast<double>(bits) >= std::floor(p * 4294967296.0);
      y.Row(r)[c] = keep ? static_cast<T>(x.Row(r)[c] / (1.0 - p)) : T{0};
    }
  }
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_DROPOUT_H_
