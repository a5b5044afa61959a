// What the reference forward passes of both models share: plain loops, templated on the scalar,
// that use nothing of kernels/ but the random numbers that define dropout masks.
#ifndef LANEWISE_TESTS_MODEL_REFERENCE_PARTS_H_
#define LANEWISE_TESTS_MODEL_REFERENCE_PARTS_H_

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/random.h"
#include "model/param_set.h"

namespace lanewise::testing {

template <typename T>
using Rows = std::vector<std::vector<T>>;

// One parameter in a flat buffer.
template <typename T>
struct Table {
  const T* data;
  size_t rows, cols, stride;
  const T& operator()(size_t r, size_t c) const { return data[r * stride + c]; }
  const T& operator[](size_t c) const { return data[c]; }
};

template <typename T>
struct Weights {
  const model::ParamSet& set;
  const std::vector<T>& flat;
  Table<T> operator()(const std::string& name) const {
    const model::Param& p = set.At(name);
    return {flat.data() + p.offset, p.rows, p.cols, p.stride};
  }
};

// How a window is trained.
struct WindowOptions {
  double smoothing = 0;
  double dropout = 0;
  uint64_t seed = 0;
  uint32_t step = 0;
  uint64_t first_row = 0;
};

template <typename T>
T Sigmoid(const T& x) {
  using std::exp;
  return T(1) / (T(1) + exp(-x));
}

template <typename T>
T ClampTen(const T& x) {
  return x < T(-10) ? T(-10) : T(10) < x ? T(10) : x;
}

template <typename T>
T Silu(const T& x) {
  return x * Sigmoid(x);
}

// x W with W [in, out].
template <typename T>
std::vector<T> TimesInOut(const std::vector<T>& x, const Table<T>& w) {
  std::vector<T> y(w.cols);
  for (size_t i = 0; i < w.rows; ++i) {
    for (size_t j = 0; j < w.cols; ++j) y[j] += x[i] * w(i, j);
  }
  return y;
}

// W x with W [out, in].
template <typename T>
std::vector<T> TimesOutIn(const Table<T>& w, const std::vector<T>& x) {
  std::vector<T> y(w.rows);
  for (size_t i = 0; i < w.rows; ++i) {
    for (size_t j = 0; j < w.cols; ++j) y[i] += w(i, j) * x[j];
  }
  return y;
}

template <typename T>
std::vector<T> SoftmaxOf(const std::vector<T>& x) {
  using std::exp;
  T largest = x[0];
  for (const T& value : x) largest = largest < value ? value : largest;
  T sum(0);
  std::vector<T> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) sum += y[i] = exp(x[i] - largest);
  for (T& value : y) value = value / sum;
  return y;
}

// (1 - smoothing) onehot + smoothing / V against the softmax of the logits.
template <typename T>
T SmoothedCrossEntropy(const std::vector<T>& logits, int32_t target, double smoothing) {
  using std::log;
  const std::vector<T> p = SoftmaxOf(logits);
  T loss(0);
  for (size_t i = 0; i < p.size(); ++i) {
    double weight = smoothing / static_cast<double>(p.size());
    if (i == static_cast<size_t>(target)) weight += 1 - smoothing;
    if (weight > 0) loss += T(-weight) * log(p[i]);
  }
  return loss;
}

// The mask rule of kernels/dropout.h on row t of a window.
template <typename T>
void DropRow(std::vector<T>& x, size_t t, uint32_t stream, const WindowOptions& options) {
  if (options.dropout == 0) return;
  const kernels::RandomKey key{.seed = options.seed, .stream = stream, .step = options.step};
  for (size_t c = 0; c < x.size(); ++c) {
    const uint64_t index = (options.first_row + t) * x.size() + c;
    const bool kept =
        static_cast<double>(kernels::RandomBits(key, index)) >= options.dropout * 4294967296.0;
    x[c] = kept ? x[c] * T(1 / (1 - options.dropout)) : T(0);
  }
}

template <typename T>
void AddTo(std::vector<T>& x, const std::vector<T>& y) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
}

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_MODEL_REFERENCE_PARTS_H_
