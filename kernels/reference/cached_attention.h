// Attention over a cache by plain loops.
#ifndef LANEWISE_KERNELS_REFERENCE_CACHED_ATTENTION_H_
#define LANEWISE_KERNELS_REFERENCE_CACHED_ATTENTION_H_

#include <algorithm>
#include <cstddef>
#include <vector>

#include "kernels/reference/attention.h"
#include "kernels/view.h"

namespace lanewise::kernels::reference {

// q, out [n, heads * hd]; k, v [capacity, kv_heads * hd]; token i sees the rows [first, base + i].
template <typename T>
void CachedAttentionForward(Mat<const T> q, Mat<const T> k, Mat<const T> v, size_t kv_heads,
                            size_t first, size_t base, Mat<T> out) {
  const size_t head_dim = k.cols / kv_heads;
  const size_t heads = q.cols / head_dim;
  std::vector<T> p;
  for (size_t i = 0; i < q.rows; ++i) {
    for (size_t h = 0; h < heads; ++h) {
      const size_t kv = h / (heads / kv_heads) * head_dim;
      Probabilities(q.Row(i) + h * head_dim, k.Cols(kv, head_dim), first, base + i + 1, p);
      T* o = out.Row(i) + h * head_dim;
      std::fill_n(o, head_dim, T{0});
      for (size_t j = first; j <= base + i; ++j) {
        for (size_t c = 0; c < head_dim; ++c) o[c] += p[j] * v.Row(j)[kv + c];
      }
    }
  }
}

}  // namespace lanewise::kernels::reference

#endif  // LANEWISE_KERNELS_REFERENCE_CACHED_ATTENTION_H_
