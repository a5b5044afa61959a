// The WKV scan and its gradient as plain loops that keep every state: the oracle of kernels/wkv.h.
#ifndef LANEWISE_KERNELS_REFERENCE_WKV_H_
#define LANEWISE_KERNELS_REFERENCE_WKV_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace lanewise::kernels::reference {

// Everything that enters the scan of one sequence, or the gradient of each of them.
template <typename T>
struct WkvValues {
  size_t steps = 0;
  size_t channels = 0;
  size_t slots = 0;
  std::vector<T> r, k, v, d;                           // [steps, channels]
  std::vector<T> write, read;                          // [steps, slots]
  std::vector<T> decay_base, time_first, decay_scale;  // [channels]
  std::vector<T> state;                                // [2, slots, channels]

  WkvValues(size_t steps_in, size_t channels_in, size_t slots_in)
      : steps(steps_in),
        channels(channels_in),
        slots(slots_in),
        r(steps * channels),
        k(r.size()),
        v(r.size()),
        d(r.size()),
        write(steps * slots),
        read(write.size()),
        decay_base(channels),
        time_first(channels),
        decay_scale(channels),
        state(2 * slots * channels) {}
};

template <typename T>
struct WkvOutputs {
  std::vector<T> ry, inv_den;  // [steps, channels]
  std::vector<T> states;       // [steps + 1, 2, slots, channels]: before each step, and the last
};

template <typename T>
T WkvSigmoid(T x) {
  return T(1) / (T(1) + std::exp(-x));
}

// NaN passes.
template <typename T>
T WkvClamp(T x) {
  return x < T(-10) ? T(-10) : x > T(10) ? T(10) : x;
}

template <typename T>
WkvOutputs<T> WkvForward(const WkvValues<T>& in) {
  const size_t E = in.channels;
  const size_t S = in.slots;
  WkvOutputs<T> out{std::vector<T>(in.steps * E), std::vector<T>(in.steps * E),
                    std::vector<T>((in.steps + 1) * 2 * S * E)};
  std::copy(in.state.begin(), in.state.end(), out.states.begin());
  for (size_t t = 0; t < in.steps; ++t) {
    const T* before = out.states.data() + t * 2 * S * E;
    T* after = out.states.data() + (t + 1) * 2 * S * E;
    for (size_t i = 0; i < E; ++i) {
      const T k = std::exp(WkvClamp(in.k[t * E + i]));
      const T kv = k * in.v[t * E + i];
      const T a = WkvSigmoid(in.decay_base[i] + in.d[t * E + i]) * in.decay_scale[i];
      const T u = std::exp(WkvClamp(in.time_first[i]));
      T numerator = u * kv;
      T denominator = u * k + T(1e-6);
      for (size_t s = 0; s < S; ++s) {
        const size_t num = s * E + i;
        const size_t den = (S + s) * E + i;
        numerator += in.read[t * S + s] * before[num];
        denominator += in.read[t * S + s] * before[den];
        after[num] = a * before[num] + in.write[t * S + s] * kv;
        after[den] = a * before[den] + in.write[t * S + s] * k;
      }
      out.ry[t * E + i] = WkvSigmoid(in.r[t * E + i]) * (numerator / denominator);
      out.inv_den[t * E + i] = T(1) / denominator;
    }
  }
  return out;
}

// Gradient of sum(dry * ry) + sum(end * final state), with respect to everything but decay_scale.
template <typename T>
WkvValues<T> WkvBackward(const WkvValues<T>& in, const WkvOutputs<T>& out,
                         const std::vector<T>& dry, const std::vector<T>& end) {
  const size_t E = in.channels;
  const size_t S = in.slots;
  WkvValues<T> grad(in.steps, E, S);
  grad.state = end;  // becomes the gradient of the state before each step in turn
  for (size_t t = in.steps; t-- > 0;) {
    const T* state = out.states.data() + t * 2 * S * E;
    for (size_t i = 0; i < E; ++i) {
      const size_t at = t * E + i;
      const T k = std::exp(WkvClamp(in.k[at]));
      const T v = in.v[at];
      const T z = in.decay_base[i] + in.d[at];
      const T a = WkvSigmoid(z) * in.decay_scale[i];
      const T u = std::exp(WkvClamp(in.time_first[i]));
      const T r = WkvSigmoid(in.r[at]);
      T numerator = u * k * v;
      for (size_t s = 0; s < S; ++s) numerator += in.read[t * S + s] * state[s * E + i];
      const T y = numerator * out.inv_den[at];
      const T p = dry[at] * r * out.inv_den[at];
      const T q = -p * y;
      grad.r[at] = dry[at] * y * r * WkvSigmoid(-in.r[at]);
      T dk = u * (p * v + q);
      T dv = u * k * p;
      T da = 0;
      for (size_t s = 0; s < S; ++s) {
        const size_t num = s * E + i;
        const size_t den = (S + s) * E + i;
        const T gn = grad.state[num];
        const T gd = grad.state[den];
        const T write = in.write[t * S + s];
        const T read = in.read[t * S + s];
        grad.write[t * S + s] += k * (v * gn + gd);
        grad.read[t * S + s] += p * state[num] + q * state[den];
        dk += write * (v * gn + gd);
        dv += write * k * gn;
        da += gn * state[num] + gd * state[den];
        grad.state[num] = a * gn + read * p;
        grad.state[den] = a * gd + read * q;
      }
      grad.k[at] = in.k[at] < T(-10) || in.k[at] > T(10) ? T(0) : k * dk;
      grad.v[at] = dv;
      grad.d[at] = da * a * WkvSigmoid(-z);
      grad.decay_base[i] += grad.d[at];
      const bool clamped = in.time_first[i] < T(-10) || in.time_first[i] > T(10);
      if (!clamped) grad.time_first[i] += u * k * (p * v + q);
    }
  }
  return grad;
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_WKV_H_
