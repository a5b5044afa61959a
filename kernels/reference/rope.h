// Rotary position embedding by plain loops, with the angles of the definition instead of a table.
#ifndef LANEWISE_KERNELS_REFERENCE_ROPE_H_
#define LANEWISE_KERNELS_REFERENCE_ROPE_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/view.h"

namespace lanewise::kernels::reference {

// Rotates x [R, heads * head_dim] in place; direction 1 forward, -1 for the gradient.
template <typename T>
void Rope(double theta, size_t head_dim, std::span<const int32_t> positions, double direction,
          Mat<T> x) {
  for (size_t r = 0; r < x.rows; ++r) {
    for (size_t c = 0; c < x.cols; c += 2) {
      const double exponent = static_cast<double>(c % head_dim) / static_cast<double>(head_dim);
      const double angle = direction * positions[r] * std::pow(theta, -exponent);
      const T even = x.Row(r)[c];
      const T odd = x.Row(r)[c + 1];
      x.Row(r)[c] = static_cast<T>(even * std::cos(angle) - odd * std::sin(angle));
      x.Row(r)[c + 1] = static_cast<T>(even * std::sin(angle) + odd * std::cos(angle));
    }
  }
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_ROPE_H_
