// C = epilogue(A·B) as plain loops.
#ifndef LANEWISE_KERNELS_REFERENCE_MATMUL_H_
#define LANEWISE_KERNELS_REFERENCE_MATMUL_H_

#include <cmath>
#include <cstddef>

#include "kernels/matmul.h"
#include "kernels/reference/bfloat16.h"

namespace lanewise::kernels::reference {

// One element of C, and the sum of the absolute values of its terms: the scale of rounding errors.
template <typename T>
struct MatmulElement {
  T value;
  T magnitude;
};

// Evaluates element (row, column) of the product of strided operands with its epilogue. For
// kAccumulate `c` is read, not written.
template <typename T>
MatmulElement<T> MatmulAt(const MatmulArgs& args, size_t row, size_t column) {
  MatmulElement<T> e = {T(0), T(0)};
  for (size_t k = 0; k < args.k; ++k) {
    const MatmulOperand& b = args.b.strided;
    const size_t at = k * b.row_stride + column * b.col_stride;
    const float weight = args.b.bf16 == nullptr ? b.data[at] : Widen(args.b.bf16[at]);
    const T term = T(args.a.data[row * args.a.row_stride + k * args.a.col_stride]) * T(weight);
    e.value += term;
    e.magnitude += std::abs(term);
  }
  T add = T(0);
  if (args.epilogue == MatmulEpilogue::kAccumulate) add = T(args.c[row * args.c_stride + column]);
  if (args.epilogue == MatmulEpilogue::kResidual) {
    add = T(args.residual[row * args.residual_stride + column]);
  }
  if (args.epilogue == MatmulEpilogue::kBias) add = T(args.residual[column]);
  e.value += add;
  e.magnitude += std::abs(add);
  return e;
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_MATMUL_H_
