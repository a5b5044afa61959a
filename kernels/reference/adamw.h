// AdamW by a plain loop.
#ifndef LANEWISE_KERNELS_REFERENCE_ADAMW_H_
#define LANEWISE_KERNELS_REFERENCE_ADAMW_H_

#include <cmath>
#include <cstddef>
#include <span>

#include "kernels/adamw.h"

namespace lanewise::kernels::reference {

template <typename T>
void AdamWUpdate(const AdamWStep& s, std::span<T> params, std::span<T> grads, std::span<T> m,
                 std::span<T> v) {
  for (size_t i = 0; i < params.size(); ++i) {
    const double g = s.grad_scale * grads[i];
    const double m1 = s.beta1 * m[i] + (1.0 - s.beta1) * g;
    const double v1 = s.beta2 * v[i] + (1.0 - s.beta2) * g * g;
    const double step =
        s.lr * (m1 / s.bias_correction1) / (std::sqrt(v1 / s.bias_correction2) + s.eps);
    const double updated = params[i] * (1.0 - s.lr * s.weight_decay) - step;
    if (std::isfinite(updated)) params[i] = static_cast<T>(updated);
    m[i] = static_cast<T>(m1);
    v[i] = static_cast<T>(v1);
    if (s.zero_grads) grads[i] = 0;
  }
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_ADAMW_H_
