// Token shift and channel shift with their gradients as plain loops: the oracle of
// kernels/token_shift.h.
#ifndef LANEWISE_KERNELS_REFERENCE_TOKEN_SHIFT_H_
#define LANEWISE_KERNELS_REFERENCE_TOKEN_SHIFT_H_

#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

namespace lanewise::kernels::reference {

template <typename T>
T ShiftSigmoid(T x) {
  return T(1) / (T(1) + std::exp(-x));
}

// Rows of `n` [steps, channels] with `carried` [back, channels] before them.
template <typename T>
struct ShiftRows {
  size_t channels = 0;
  std::vector<T> carried, n;

  T At(size_t t, size_t back, size_t i) const {
    const size_t rows = carried.size() / channels;
    return t >= back ? n[(t - back) * channels + i] : carried[(rows + t - back) * channels + i];
  }
};

// The raw parameters w1, w2, w4, mix_r, mix_k, mix_v, [channels] each.
template <typename T>
using ShiftParams = std::array<std::vector<T>, 6>;

inline constexpr std::array<size_t, 3> kShifts = {1, 2, 4};

template <typename T>
T ShiftSum(const ShiftParams<T>& params, size_t i) {
  return ShiftSigmoid(params[0][i]) + ShiftSigmoid(params[1][i]) + ShiftSigmoid(params[2][i]) +
         T(1e-6);
}

template <typename T>
T Shifted(const ShiftRows<T>& rows, const ShiftParams<T>& params, size_t t, size_t i) {
  T sum = 0;
  for (size_t j = 0; j < 3; ++j) sum += ShiftSigmoid(params[j][i]) * rows.At(t, kShifts[j], i);
  return sum / ShiftSum(params, i);
}

// x_r, x_k, x_v.
template <typename T>
std::array<std::vector<T>, 3> TokenShiftForward(const ShiftRows<T>& rows,
                                                const ShiftParams<T>& params) {
  std::array<std::vector<T>, 3> x;
  for (size_t z = 0; z < 3; ++z) {
    x[z].resize(rows.n.size());
    for (size_t at = 0; at < rows.n.size(); ++at) {
      const size_t i = at % rows.channels;
      const T m = ShiftSigmoid(params[3 + z][i]);
      x[z][at] = rows.n[at] * m + Shifted(rows, params, at / rows.channels, i) * (T(1) - m);
    }
  }
  return x;
}

// dn is overwritten; the gradients of the raw parameters are returned.
template <typename T>
ShiftParams<T> TokenShiftBackward(const ShiftRows<T>& rows, const ShiftParams<T>& params,
                                  const std::array<std::vector<T>, 3>& dx, std::vector<T>& dn) {
  const size_t E = rows.channels;
  ShiftParams<T> grad;
  for (std::vector<T>& g : grad) g.assign(E, T(0));
  dn.assign(rows.n.size(), T(0));
  for (size_t at = 0; at < rows.n.size(); ++at) {
    const size_t t = at / E;
    const size_t i = at % E;
    const T shifted = Shifted(rows, params, t, i);
    T dshifted = 0;
    for (size_t z = 0; z < 3; ++z) {
      const T m = ShiftSigmoid(params[3 + z][i]);
      dn[at] += m * dx[z][at];
      dshifted += (T(1) - m) * dx[z][at];
      grad[3 + z][i] += dx[z][at] * (rows.n[at] - shifted) * m * (T(1) - m);
    }
    for (size_t j = 0; j < 3; ++j) {
      const T s = ShiftSigmoid(params[j][i]);
      const T sum = ShiftSum(params, i);
      if (t >= kShifts[j]) dn[at - kShifts[j] * E] += s / sum * dshifted;
      grad[j][i] += dshifted * (rows.At(t, kShifts[j], i) - shifted) / sum * s * (T(1) - s);
    }
  }
  return grad;
}

template <typename T>
std::vector<T> ChannelShiftForward(const ShiftRows<T>& rows, const std::vector<T>& mix) {
  std::vector<T> x(rows.n.size());
  for (size_t at = 0; at < x.size(); ++at) {
    const size_t i = at % rows.channels;
    const T m = ShiftSigmoid(mix[i]);
    x[at] = rows.n[at] * m + rows.At(at / rows.channels, 1, i) * (T(1) - m);
  }
  return x;
}

template <typename T>
std::vector<T> ChannelShiftBackward(const ShiftRows<T>& rows, const std::vector<T>& mix,
                                    const std::vector<T>& dx, std::vector<T>& dn) {
  const size_t E = rows.channels;
  std::vector<T> grad(E, T(0));
  dn.assign(rows.n.size(), T(0));
  for (size_t at = 0; at < rows.n.size(); ++at) {
    const size_t i = at % E;
    const T m = ShiftSigmoid(mix[i]);
    dn[at] += m * dx[at];
    if (at >= E) dn[at - E] += (T(1) - m) * dx[at];
    grad[i] += dx[at] * (rows.n[at] - rows.At(at / E, 1, i)) * m * (T(1) - m);
  }
  return grad;
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_TOKEN_SHIFT_H_
