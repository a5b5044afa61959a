#include "kernels/cached_attention.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cached_attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/attention-inl.h"
#include "kernels/loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace attention {

// Rows of a cache as products read them: in place, or in `buffer`.
HWY_INLINE PackedRows CacheRows(F32 d, ReadAs read, Mat<const float> from, float* buffer,
                                size_t stride) {
  return RowsOrCopy(d, read, from, false, buffer, stride);
}
HWY_INLINE PackedRows CacheRows(F32 d, ReadAs, Mat<const BFloat16> from, float* buffer,
                                size_t stride) {
  PackRows(d, from, 1.0f, buffer, stride);
  return {buffer, stride};
}

// What one call computes: the attention over the cache rows [begin, end).
template <typename T>
struct CachedProblem {
  Mat<const float> q;
  Mat<const T> k, v;
  size_t kv_heads;
  size_t base;
  size_t begin;
  size_t end;
  Mat<float> out;   // if not empty, [n, heads * hd], divided by the sums
  Mat<float> part;  // else [n * heads, hd + 2]

  size_t head_dim = k.cols / kv_heads;
  size_t heads = q.cols / head_dim;
  size_t group = heads / kv_heads;
  // Where token `token` stops seeing keys.
  size_t EndFor(size_t token) const { return std::min(end, base + token + 1); }
};

// Writes one row of the result: `row` is not divided by its sum yet.
template <typename T>
HWY_INLINE void FinishRow(F32 d, const CachedProblem<T>& p, size_t token, size_t head,
                          const float* row, float max, float sum) {
  const size_t lanes = hn::Lanes(d);
  const size_t head_dim = p.head_dim;
  const bool divide = p.out.data != nullptr;
  float* const to =
      divide ? p.out.Row(token) + head * head_dim : p.part.Row(token * p.heads + head);
  const V32 factor = hn::Set(d, divide ? 1.0f / sum : 1.0f);
  for (size_t c = 0; c < head_dim; c += lanes) {
    const size_t n = std::min(lanes, head_dim - c);
    hn::StoreN(hn::Mul(hn::LoadU(d, row + c), factor), d, to + c, n);
  }
  if (!divide) {
    to[head_dim] = max;
    to[head_dim + 1] = sum;
  }
}

// Tokens [token, token + tokens) and heads [head, head + heads), together at most kTile, as one
// tile of queries: lane i is token i / heads, head i % heads.
template <typename T>
HWY_INLINE void CachedTile(F32 d, const CachedProblem<T>& p, size_t token, size_t tokens,
                           size_t head, size_t heads, std::span<float> scratch) {
  const size_t head_dim = p.head_dim;
  const size_t stride = RoundUp(head_dim, hn::Lanes(d));
  const size_t queries = tokens * heads;
  Scratch memory(scratch);
  const OnlineSoftmax state = {memory.Take(kTile), memory.Take(kTile), memory.Take(kTile),
                               memory.Take(kTile * stride), stride};
  float* const qt = memory.Take(head_dim * kTile);
  float* const scores = memory.Take(kTile * kTile);
  float* const kp = memory.Take(kTile * stride);
  float* const vp = memory.Take(kTile * stride);
  for (size_t i = 0; i < queries; ++i) {
    const float* const from = p.q.Row(token + i / heads) + (head + i % heads) * head_dim;
    std::copy_n(from, head_dim, kp + i * stride);
  }
  PackTransposed({kp, queries, head_dim, stride}, Scale(head_dim) * kLog2E, qt);
  std::fill_n(state.max, kTile, std::numeric_limits<float>::lowest());
  std::fill_n(state.sum, kTile, 0.0f);
  std::fill_n(state.out, kTile * stride, 0.0f);
  const size_t column = head / p.group * head_dim;
  const size_t end = p.EndFor(token + tokens - 1);
  for (size_t k0 = p.begin; k0 < end; k0 += kTile) {
    const Extent extent = {std::min(kTile, end - k0), queries,
                           static_cast<ptrdiff_t>(p.base + token + 1) - static_cast<ptrdiff_t>(k0),
                           static_cast<ptrdiff_t>(heads)};
    const PackedRows kr = CacheRows(d, ReadAs::kWholeBlocks,
                                    p.k.Rows(k0, extent.keys).Cols(column, head_dim), kp, stride);
    const PackedRows vr = CacheRows(d, ReadAs::kWholeVectors,
                                    p.v.Rows(k0, extent.keys).Cols(column, head_dim), vp, stride);
    Scores(d, extent, kr.data, kr.stride, head_dim, qt, scores);
    const bool corrected = SoftmaxTile(d, extent, scores, state);
    AddValues(d, extent, scores, vr, k0 == p.begin, corrected, state);
  }
  for (size_t i = 0; i < queries; ++i) {
    FinishRow(d, p, token + i / heads, head + i % heads, state.out + i * stride, state.max[i],
              state.sum[i]);
  }
}

// out[i] = <q, key i> for kKeys rows of any length, q padded with zeros to whole vectors. Each has
// the same bits however many there are.
template <size_t kKeys, typename T>
HWY_INLINE void Dots(F32 d, const float* HWY_RESTRICT q, const T* HWY_RESTRICT key, size_t stride,
                     size_t n, float* HWY_RESTRICT out) {
  static_assert(kKeys == 1 || kKeys == 4);
  const size_t lanes = hn::Lanes(d);
  V32 s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  for (size_t c = 0; c < n; c += lanes) {
    const V32 x = hn::LoadU(d, q + c);
    const bool whole = c + lanes <= n;
    const auto load = [&](size_t i) HWY_ATTR {
      const T* const from = key + i * stride + c;
      return HWY_LIKELY(whole) ? LoadWide(d, from) : LoadWideN(d, from, n - c);
    };
    s0 = hn::MulAdd(x, load(0), s0);
    if constexpr (kKeys == 4) {
      s1 = hn::MulAdd(x, load(1), s1);
      s2 = hn::MulAdd(x, load(2), s2);
      s3 = hn::MulAdd(x, load(3), s3);
    }
  }
  float sums[4];
  SumLanes(d, s0, s1, s2, s3, sums);
  std::copy_n(sums, kKeys, out);
}

// What the row-by-row path keeps of one token and head.
struct CachedQuery {
  float* q;       // [stride], scaled
  float* out;     // [stride], not divided by the sum
  float* scores;  // [kTile]
  float* max;
  float* sum;
};

// Row i * heads + h of the buffers: token i, head h.
struct CachedQueries {
  float *q, *out, *scores, *max, *sum;
  size_t stride;
  CachedQuery At(size_t row) const {
    return {q + row * stride, out + row * stride, scores + row * kTile, max + row, sum + row};
  }
};

// Turns `keys` scores into exp2(score - max) with the running maximum; scales out and sum to it.
HWY_INLINE void SoftmaxRow(F32 d, size_t keys, size_t stride, const CachedQuery& query) {
  const size_t lanes = hn::Lanes(d);
  float* const scores = query.scores;
  std::fill(scores + keys, scores + kTile, -std::numeric_limits<float>::infinity());
  V32 top = hn::Set(d, *query.max);
  for (size_t j = 0; j < keys; j += lanes) top = hn::Max(top, hn::LoadU(d, scores + j));
  const float max = hn::ReduceMax(d, top);
  const V32 shift = hn::Set(d, max);
  V32 total = hn::Zero(d);
  for (size_t j = 0; j < keys; j += lanes) {
    const V32 e = Exp2(d, hn::Sub(hn::LoadU(d, scores + j), shift));
    hn::StoreU(e, d, scores + j);
    total = hn::Add(total, e);
  }
  const V32 factor = Exp2(d, hn::Set(d, *query.max - max));
  *query.sum = *query.sum * hn::GetLane(factor) + hn::ReduceSum(d, total);
  *query.max = max;
  for (size_t c = 0; c < stride; c += lanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, query.out + c), factor), d, query.out + c);
  }
}

// out += sum_j p[j] * v[j, 0:n] for kKeys rows at v; out has whole vectors.
template <size_t kKeys, typename T>
HWY_INLINE void AddRows(F32 d, const float* p, const T* v, size_t v_stride, size_t n,
                        float* HWY_RESTRICT out) {
  const size_t lanes = hn::Lanes(d);
  const V32 p0 = hn::Set(d, p[0]);
  const V32 p1 = hn::Set(d, p[kKeys > 1 ? 1 : 0]);
  const V32 p2 = hn::Set(d, p[kKeys > 2 ? 2 : 0]);
  const V32 p3 = hn::Set(d, p[kKeys > 3 ? 3 : 0]);
  size_t c = 0;
  for (; c + lanes <= n; c += lanes) {
    V32 sum = hn::MulAdd(p0, LoadWide(d, v + c), hn::LoadU(d, out + c));
    if constexpr (kKeys == 4) {
      sum = hn::MulAdd(p1, LoadWide(d, v + v_stride + c), sum);
      sum = hn::MulAdd(p2, LoadWide(d, v + 2 * v_stride + c), sum);
      sum = hn::MulAdd(p3, LoadWide(d, v + 3 * v_stride + c), sum);
    }
    hn::StoreU(sum, d, out + c);
  }
  if (c == n) return;
  V32 sum = hn::MulAdd(p0, LoadWideN(d, v + c, n - c), hn::LoadU(d, out + c));
  if constexpr (kKeys == 4) {
    sum = hn::MulAdd(p1, LoadWideN(d, v + v_stride + c, n - c), sum);
    sum = hn::MulAdd(p2, LoadWideN(d, v + 2 * v_stride + c, n - c), sum);
    sum = hn::MulAdd(p3, LoadWideN(d, v + 3 * v_stride + c, n - c), sum);
  }
  hn::StoreU(sum, d, out + c);
}

// Rows of keys that are fetched before their use; values are fetched beside the keys of their row.
// Into L2: together with the rows at work they are more than an L1 of 32 KiB holds.
constexpr size_t kFetchRows = 8;

// n elements that lie `ahead` of p.
template <typename T>
HWY_INLINE void FetchRow(const T* p, size_t ahead, size_t n) {
  constexpr size_t kLine = 64 / sizeof(T);
  for (size_t c = 0; c < n; c += kLine) FetchAheadToL2(p + c, ahead);
}

// The keys [k0, k0 + keys) of all heads, each row of the caches read once from left to right, four
// rows side by side.
template <typename T>
HWY_INLINE void CachedStreamTile(F32 d, const CachedProblem<T>& p, size_t k0, size_t keys,
                                 const CachedQueries& queries) {
  const size_t tokens = p.q.rows;
  // Keys of the tile that a token sees.
  const auto seen = [&](size_t token) HWY_ATTR {
    const size_t end = p.EndFor(token);
    return end <= k0 ? 0 : std::min(keys, end - k0);
  };
  for (size_t j = 0; j < keys; j += 4) {
    const T* const key = p.k.Row(k0 + j);
    for (size_t i = 0; i < tokens; ++i) {
      const size_t n = seen(i);
      const float* q = queries.q + i * p.heads * queries.stride;
      float* score = queries.scores + i * p.heads * kTile + j;
      for (size_t kv = 0; kv < p.kv_heads; ++kv) {
        const size_t column = kv * p.head_dim;
        for (size_t r = j; i + 1 == tokens && r < std::min(j + 4, keys); ++r) {
          FetchRow(p.k.Row(k0 + r) + column, kFetchRows * p.k.stride, p.head_dim);
          FetchRow(p.v.Row(k0 + r) + column, 0, p.head_dim);
        }
        for (size_t g = 0; g < p.group; ++g, q += queries.stride, score += kTile) {
          if (j + 4 <= n) {
            Dots<4>(d, q, key + column, p.k.stride, p.head_dim, score);
          } else {
            for (size_t r = j; r < n; ++r) {
              Dots<1>(d, q, key + (r - j) * p.k.stride + column, 0, p.head_dim, score + r - j);
            }
          }
        }
      }
    }
  }
  for (size_t row = 0; row < tokens * p.heads; ++row) {
    const size_t n = seen(row / p.heads);
    if (n > 0) SoftmaxRow(d, n, queries.stride, queries.At(row));
  }
  for (size_t j = 0; j < keys; j += 4) {
    const T* const value = p.v.Row(k0 + j);
    for (size_t i = 0; i < tokens; ++i) {
      const size_t n = seen(i);
      for (size_t kv = 0; kv < p.kv_heads; ++kv) {
        const T* const v = value + kv * p.head_dim;
        for (size_t g = 0; g < p.group; ++g) {
          const CachedQuery query = queries.At(i * p.heads + kv * p.group + g);
          if (j + 4 <= n) {
            AddRows<4>(d, query.scores + j, v, p.v.stride, p.head_dim, query.out);
          } else {
            for (size_t r = j; r < n; ++r) {
              AddRows<1>(d, query.scores + r, v + (r - j) * p.v.stride, 0, p.head_dim, query.out);
            }
          }
        }
      }
    }
  }
}

template <typename T>
HWY_INLINE void CachedStream(F32 d, const CachedProblem<T>& p, std::span<float> scratch) {
  const size_t head_dim = p.head_dim;
  const size_t heads = p.heads;
  const size_t rows = p.q.rows * heads;
  const size_t stride = RoundUp(head_dim, hn::Lanes(d));
  Scratch memory(scratch);
  const CachedQueries queries = {memory.Take(rows * stride), memory.Take(rows * stride),
                                 memory.Take(rows * kTile),  memory.Take(rows),
                                 memory.Take(rows),          stride};
  const float scale = Scale(head_dim) * kLog2E;
  for (size_t row = 0; row < rows; ++row) {
    const CachedQuery query = queries.At(row);
    const float* const from = p.q.Row(row / heads) + row % heads * head_dim;
    for (size_t c = 0; c < stride; ++c) query.q[c] = c < head_dim ? scale * from[c] : 0.0f;
    std::fill_n(query.out, stride, 0.0f);
    *query.max = std::numeric_limits<float>::lowest();
    *query.sum = 0.0f;
  }
  const size_t end = p.EndFor(p.q.rows - 1);
  for (size_t j = p.begin; j < std::min(end, p.begin + kFetchRows); ++j) {
    FetchRow(p.k.Row(j), 0, p.kv_heads * head_dim);
  }
  for (size_t k0 = p.begin; k0 < end; k0 += kTile) {
    CachedStreamTile(d, p, k0, std::min(kTile, end - k0), queries);
  }
  for (size_t row = 0; row < rows; ++row) {
    const CachedQuery query = queries.At(row);
    FinishRow(d, p, row / heads, row % heads, query.out, *query.max, *query.sum);
  }
}

template <typename T>
HWY_INLINE void Cached(const CachedProblem<T>& p, std::span<float> scratch) {
  const F32 d;
  const size_t tokens = p.q.rows;
  if (tokens == 0) return;
  if (tokens * p.group < kCachedAttentionTileQueries) {
    CachedStream(d, p, scratch);
    return;
  }
  // The query heads of one key/value head, or at most kTile of them, for as many tokens as fit.
  const size_t tile_heads = std::min(p.group, kTile);
  const size_t tile_tokens = kTile / tile_heads;
  for (size_t kv = 0; kv < p.kv_heads; ++kv) {
    const size_t heads_end = (kv + 1) * p.group;
    for (size_t token = 0; token < tokens; token += tile_tokens) {
      for (size_t head = kv * p.group; head < heads_end; head += tile_heads) {
        CachedTile(d, p, token, std::min(tile_tokens, tokens - token), head,
                   std::min(tile_heads, heads_end - head), scratch);
      }
    }
  }
}

template <typename T>
void CachedForwardImpl(Mat<const float> q, Mat<const T> k, Mat<const T> v, size_t kv_heads,
                       size_t first, size_t base, Mat<float> out, std::span<float> scratch) {
  Cached<T>({q, k, v, kv_heads, base, first, base + q.rows, out, {}}, scratch);
}

template <typename T>
void CachedPartialImpl(Mat<const float> q, Mat<const T> k, Mat<const T> v, size_t kv_heads,
                       size_t first, size_t base, size_t begin, size_t end, Mat<float> part,
                       std::span<float> scratch) {
  Cached<T>({q, k, v, kv_heads, base, std::max(first, begin), end, {}, part}, scratch);
}

void CachedMergeImpl(Mat<const float> parts, size_t chunks, Mat<float> out) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const size_t head_dim = parts.cols - 2;
  const size_t group = out.cols / head_dim;
  const size_t rows = out.rows * group;
  for (size_t r = 0; r < rows; ++r) {
    float max = std::numeric_limits<float>::lowest();
    for (size_t i = 0; i < chunks; ++i) max = std::max(max, parts.Row(i * rows + r)[head_dim]);
    float sum = 0.0f;
    for (size_t i = 0; i < chunks; ++i) {
      const float* const part = parts.Row(i * rows + r) + head_dim;
      sum += std::exp2(part[0] - max) * part[1];
    }
    float* const to = out.Row(r / group) + r % group * head_dim;
    for (size_t c = 0; c < head_dim; c += lanes) {
      const size_t n = std::min(lanes, head_dim - c);
      V32 total = hn::Zero(d);
      for (size_t i = 0; i < chunks; ++i) {
        const float* const part = parts.Row(i * rows + r);
        const V32 weight = hn::Set(d, std::exp2(part[head_dim] - max) / sum);
        total = hn::MulAdd(weight, hn::LoadN(d, part + c, n), total);
      }
      hn::StoreN(total, d, to + c, n);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace attention
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {

HWY_EXPORT_T(CachedAttentionForwardTable, attention::CachedForwardImpl<float>);
HWY_EXPORT_T(CachedAttentionForwardBf16Table, attention::CachedForwardImpl<BFloat16>);
HWY_EXPORT_T(CachedAttentionPartialTable, attention::CachedPartialImpl<float>);
HWY_EXPORT_T(CachedAttentionPartialBf16Table, attention::CachedPartialImpl<BFloat16>);
HWY_EXPORT_T(CachedAttentionMergeTable, attention::CachedMergeImpl);

size_t CachedAttentionScratch(size_t tokens, size_t heads, size_t head_dim) {
  const size_t stride = (head_dim + 63) / 64 * 64;  // rows are padded to at most 64 lanes
  // A tile of scores, 3 rows of numbers, 4 tiles of rows, and room to align the first piece; or,
  // row by row, a query, an output, scores, a maximum and a sum for each token and head.
  const size_t tiles = 64 * 64 + 3 * 64 + 4 * 64 * stride + 16;
  const size_t rows =
      std::min(tokens * heads, (kCachedAttentionTileQueries - 1) * heads) * (2 * stride + 64 + 2);
  return std::max(tiles, rows + 6 * 16);
}

void CachedAttentionForward(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                            size_t kv_heads, size_t first, size_t base, Mat<float> out,
                            std::span<float> scratch) {
  HWY_DYNAMIC_DISPATCH_T(CachedAttentionForwardTable)
  (q, k, v, kv_heads, first, base, out, scratch);
}

void CachedAttentionForward(Mat<const float> q, Mat<const BFloat16> k, Mat<const BFloat16> v,
                            size_t kv_heads, size_t first, size_t base, Mat<float> out,
                            std::span<float> scratch) {
  HWY_DYNAMIC_DISPATCH_T(CachedAttentionForwardBf16Table)
  (q, k, v, kv_heads, first, base, out, scratch);
}

void CachedAttentionPartial(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                            size_t kv_heads, size_t first, size_t base, size_t begin, size_t end,
                            Mat<float> part, std::span<float> scratch) {
  HWY_DYNAMIC_DISPATCH_T(CachedAttentionPartialTable)
  (q, k, v, kv_heads, first, base, begin, end, part, scratch);
}

void CachedAttentionPartial(Mat<const float> q, Mat<const BFloat16> k, Mat<const BFloat16> v,
                            size_t kv_heads, size_t first, size_t base, size_t begin, size_t end,
                            Mat<float> part, std::span<float> scratch) {
  HWY_DYNAMIC_DISPATCH_T(CachedAttentionPartialBf16Table)
  (q, k, v, kv_heads, first, base, begin, end, part, scratch);
}

void CachedAttentionMerge(Mat<const float> parts, size_t chunks, Mat<float> out) {
  HWY_DYNAMIC_DISPATCH_T(CachedAttentionMergeTable)(parts, chunks, out);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
