// Causal attention by plain loops over all pairs, forward and backward.
#ifndef LANEWISE_KERNELS_REFERENCE_ATTENTION_H_
#define LANEWISE_KERNELS_REFERENCE_ATTENTION_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "kernels/view.h"

namespace lanewise::kernels::reference {

// p_j = exp(<q,k_j> / sqrt(hd)) for the keys j in [begin, end), divided by their sum. Returns the
// log-sum-exp.
template <typename T>
T Probabilities(const T* q, Mat<const T> k, size_t begin, size_t end, std::vector<T>& p) {
  const T scale = T{1} / std::sqrt(static_cast<T>(k.cols));
  p.assign(end, T{0});
  T max = -std::numeric_limits<T>::infinity();
  for (size_t j = begin; j < end; ++j) {
    for (size_t c = 0; c < k.cols; ++c) p[j] += q[c] * k.Row(j)[c];
    p[j] *= scale;
    max = std::max(max, p[j]);
  }
  T sum = 0;
  for (size_t j = begin; j < end; ++j) sum += p[j] = std::exp(p[j] - max);
  for (size_t j = begin; j < end; ++j) p[j] /= sum;
  return max + std::log(sum);
}

// q, out [T, G * hd]; k, v [T, hd]; lse [G, T].
template <typename T>
void AttentionForward(Mat<const T> q, Mat<const T> k, Mat<const T> v, Mat<T> out, Mat<T> lse) {
  const size_t head_dim = k.cols;
  std::vector<T> p;
  for (size_t g = 0; g < q.cols / head_dim; ++g) {
    for (size_t i = 0; i < q.rows; ++i) {
      lse.Row(g)[i] = Probabilities(q.Row(i) + g * head_dim, k, 0, i + 1, p);
      T* o = out.Row(i) + g * head_dim;
      std::fill_n(o, head_dim, T{0});
      for (size_t j = 0; j <= i; ++j) {
        for (size_t c = 0; c < head_dim; ++c) o[c] += p[j] * v.Row(j)[c];
      }
    }
  }
}

// dq, dout [T, G * hd]; dk, dv [T, hd]; all gradients are overwritten.
template <typename T>
void AttentionBackward(Mat<const T> q, Mat<const T> k, Mat<const T> v, Mat<const T> dout, Mat<T> dq,
                       Mat<T> dk, Mat<T> dv) {
  const size_t head_dim = k.cols;
  const T scale = T{1} / std::sqrt(static_cast<T>(head_dim));
  for (size_t r = 0; r < q.rows; ++r) {
    std::fill_n(dq.Row(r), q.cols, T{0});
    std::fill_n(dk.Row(r), head_dim, T{0});
    std::fill_n(dv.Row(r), head_dim, T{0});
  }
  std::vector<T> p;
  std::vector<T> dp;
  for (size_t g = 0; g < q.cols / head_dim; ++g) {
    for (size_t i = 0; i < q.rows; ++i) {
      const T* qi = q.Row(i) + g * head_dim;
      const T* doi = dout.Row(i) + g * head_dim;
      Probabilities(qi, k, 0, i + 1, p);
      dp.assign(i + 1, T{0});
      T mean = 0;
      for (size_t j = 0; j <= i; ++j) {
        for (size_t c = 0; c < head_dim; ++c) {
          dp[j] += doi[c] * v.Row(j)[c];
          dv.Row(j)[c] += p[j] * doi[c];
        }
        mean += p[j] * dp[j];
      }
      for (size_t j = 0; j <= i; ++j) {
        const T ds = p[j] * (dp[j] - mean) * scale;
        for (size_t c = 0; c < head_dim; ++c) {
          dq.Row(i)[g * head_dim + c] += ds * k.Row(j)[c];
          dk.Row(j)[c] += ds * qi[c];
        }
      }
    }
  }
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_ATTENTION_H_
