#include "kernels/cached_attention.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cached_attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace attention {

// From this many pairs of a token and a head on, tiles of scores are faster than row by row.
inline constexpr size_t kTileFrom = 6;

// What one call computes: the attention over the cache rows [begin, end).
struct CachedProblem {
  Mat<const float> q, k, v;
  size_t group;  // query heads
  size_t base;
  size_t begin;
  size_t end;
  Mat<float> out;   // if not empty, [n, G * hd], divided by the sums
  Mat<float> part;  // else [n * G, hd + 2]

  size_t HeadDim() const { return k.cols; }
  // Where token `token` stops seeing keys.
  size_t EndFor(size_t token) const { return std::min(end, base + token + 1); }
};

// Writes one row of the result: `row` is not divided by its sum yet.
HWY_INLINE void FinishRow(F32 d, const CachedProblem& p, size_t token, size_t head,
                          const float* row, float max, float sum) {
  const size_t lanes = hn::Lanes(d);
  const bool divide = p.out.data != nullptr;
  float* const to =
      divide ? p.out.Row(token) + head * p.HeadDim() : p.part.Row(token * p.group + head);
  const V32 factor = hn::Set(d, divide ? 1.0f / sum : 1.0f);
  for (size_t c = 0; c < p.HeadDim(); c += lanes) {
    const size_t n = std::min(lanes, p.HeadDim() - c);
    hn::StoreN(hn::Mul(hn::LoadU(d, row + c), factor), d, to + c, n);
  }
  if (!divide) {
    to[p.HeadDim()] = max;
    to[p.HeadDim() + 1] = sum;
  }
}

// Tokens [token, token + tokens) and heads [head, head + heads), together at most kTile, as one
// tile of queries: lane i is token i / heads, head i % heads.
HWY_INLINE void CachedTile(F32 d, const CachedProblem& p, size_t token, size_t tokens, size_t head,
                           size_t heads, std::span<float> scratch) {
  const size_t head_dim = p.HeadDim();
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
  const size_t end = p.EndFor(token + tokens - 1);
  for (size_t k0 = p.begin; k0 < end; k0 += kTile) {
    const Extent extent = {std::min(kTile, end - k0), queries,
                           static_cast<ptrdiff_t>(p.base + token + 1) - static_cast<ptrdiff_t>(k0),
                           static_cast<ptrdiff_t>(heads)};
    const PackedRows kr = RowsOrCopy<false>(d, p.k.Rows(k0, extent.keys), false, kp, stride);
    const PackedRows vr = RowsOrCopy<true>(d, p.v.Rows(k0, extent.keys), false, vp, stride);
    Scores(d, extent, kr.data, kr.stride, head_dim, qt, scores);
    const bool corrected = SoftmaxTile(d, extent, scores, state);
    AddValues(d, extent, scores, vr, k0 == p.begin, corrected, state);
  }
  for (size_t i = 0; i < queries; ++i) {
    FinishRow(d, p, token + i / heads, head + i % heads, state.out + i * stride, state.max[i],
              state.sum[i]);
  }
}

// <a, b> for b of any length, a padded with zeros to whole vectors.
HWY_INLINE float Dot(F32 d, const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, size_t n) {
  const size_t lanes = hn::Lanes(d);
  V32 sum = hn::Zero(d);
  size_t c = 0;
  for (; c + lanes <= n; c += lanes) {
    sum = hn::MulAdd(hn::LoadU(d, a + c), hn::LoadU(d, b + c), sum);
  }
  if (c < n) sum = hn::MulAdd(hn::LoadU(d, a + c), hn::LoadN(d, b + c, n - c), sum);
  return hn::ReduceSum(d, sum);
}

// The columns [c, c + kVecs vectors) of out = factor * out + sum_j p[j] v[j, :]; with kVecs = 0 the
// last n < Lanes(d) columns.
template <size_t kVecs>
HWY_INLINE void AddRowValues(F32 d, const float* HWY_RESTRICT p, Mat<const float> v, float factor,
                             size_t c, size_t n, float* HWY_RESTRICT out) {
  const size_t lanes = hn::Lanes(d);
  const V32 f = hn::Set(d, factor);
  V32 o0 = hn::Mul(f, hn::LoadU(d, out + c));
  V32 o1 = o0, o2 = o0, o3 = o0;
  if constexpr (kVecs == 4) {
    o1 = hn::Mul(f, hn::LoadU(d, out + c + lanes));
    o2 = hn::Mul(f, hn::LoadU(d, out + c + 2 * lanes));
    o3 = hn::Mul(f, hn::LoadU(d, out + c + 3 * lanes));
  }
  for (size_t j = 0; j < v.rows; ++j) {
    const V32 pj = hn::Set(d, p[j]);
    const float* const row = v.Row(j) + c;
    if constexpr (kVecs == 0) {
      o0 = hn::MulAdd(pj, hn::LoadN(d, row, n), o0);
    } else {
      o0 = hn::MulAdd(pj, hn::LoadU(d, row), o0);
    }
    if constexpr (kVecs == 4) {
      o1 = hn::MulAdd(pj, hn::LoadU(d, row + lanes), o1);
      o2 = hn::MulAdd(pj, hn::LoadU(d, row + 2 * lanes), o2);
      o3 = hn::MulAdd(pj, hn::LoadU(d, row + 3 * lanes), o3);
    }
  }
  hn::StoreU(o0, d, out + c);
  if constexpr (kVecs == 4) {
    hn::StoreU(o1, d, out + c + lanes);
    hn::StoreU(o2, d, out + c + 2 * lanes);
    hn::StoreU(o3, d, out + c + 3 * lanes);
  }
}

// One token and one head: streams k and v once.
HWY_INLINE void CachedRow(F32 d, const CachedProblem& p, size_t token, size_t head,
                          std::span<float> scratch) {
  const size_t lanes = hn::Lanes(d);
  const size_t head_dim = p.HeadDim();
  const size_t stride = RoundUp(head_dim, lanes);
  Scratch memory(scratch);
  float* const q = memory.Take(stride);
  float* const out = memory.Take(stride);
  float* const scores = memory.Take(kTile);
  const float* const from = p.q.Row(token) + head * head_dim;
  const float scale = Scale(head_dim) * kLog2E;
  for (size_t c = 0; c < stride; ++c) q[c] = c < head_dim ? scale * from[c] : 0.0f;
  std::fill_n(out, stride, 0.0f);
  float max = std::numeric_limits<float>::lowest();
  float sum = 0.0f;
  const size_t end = p.EndFor(token);
  for (size_t k0 = p.begin; k0 < end; k0 += kTile) {
    const size_t keys = std::min(kTile, end - k0);
    for (size_t j = 0; j < keys; ++j) scores[j] = Dot(d, q, p.k.Row(k0 + j), head_dim);
    std::fill(scores + keys, scores + kTile, -std::numeric_limits<float>::infinity());
    V32 top = hn::Set(d, max);
    for (size_t j = 0; j < keys; j += lanes) top = hn::Max(top, hn::LoadU(d, scores + j));
    const float new_max = hn::ReduceMax(d, top);
    const V32 shift = hn::Set(d, new_max);
    V32 total = hn::Zero(d);
    for (size_t j = 0; j < keys; j += lanes) {
      const V32 e = Exp2(d, hn::Sub(hn::LoadU(d, scores + j), shift));
      hn::StoreU(e, d, scores + j);
      total = hn::Add(total, e);
    }
    const float factor = hn::GetLane(Exp2(d, hn::Set(d, max - new_max)));
    sum = sum * factor + hn::ReduceSum(d, total);
    max = new_max;
    const Mat<const float> v = p.v.Rows(k0, keys);
    size_t c = 0;
    for (; c + 4 * lanes <= head_dim; c += 4 * lanes) {
      AddRowValues<4>(d, scores, v, factor, c, 0, out);
    }
    for (; c + lanes <= head_dim; c += lanes) AddRowValues<1>(d, scores, v, factor, c, 0, out);
    if (c < head_dim) AddRowValues<0>(d, scores, v, factor, c, head_dim - c, out);
  }
  FinishRow(d, p, token, head, out, max, sum);
}

HWY_INLINE void Cached(const CachedProblem& p, std::span<float> scratch) {
  const F32 d;
  const size_t tokens = p.q.rows;
  if (tokens * p.group < kTileFrom) {
    for (size_t token = 0; token < tokens; ++token) {
      for (size_t head = 0; head < p.group; ++head) CachedRow(d, p, token, head, scratch);
    }
    return;
  }
  const size_t tile_heads = std::min(p.group, kTile);
  const size_t tile_tokens = kTile / tile_heads;
  for (size_t token = 0; token < tokens; token += tile_tokens) {
    for (size_t head = 0; head < p.group; head += tile_heads) {
      CachedTile(d, p, token, std::min(tile_tokens, tokens - token), head,
                 std::min(tile_heads, p.group - head), scratch);
    }
  }
}

void CachedForwardImpl(Mat<const float> q, Mat<const float> k, Mat<const float> v, size_t first,
                       size_t base, Mat<float> out, std::span<float> scratch) {
  Cached({q, k, v, q.cols / k.cols, base, first, base + q.rows, out, {}}, scratch);
}

void CachedPartialImpl(Mat<const float> q, Mat<const float> k, Mat<const float> v, size_t first,
                       size_t base, size_t begin, size_t end, Mat<float> part,
                       std::span<float> scratch) {
  Cached({q, k, v, q.cols / k.cols, base, std::max(first, begin), end, {}, part}, scratch);
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

HWY_EXPORT_T(CachedAttentionForwardTable, attention::CachedForwardImpl);
HWY_EXPORT_T(CachedAttentionPartialTable, attention::CachedPartialImpl);
HWY_EXPORT_T(CachedAttentionMergeTable, attention::CachedMergeImpl);

size_t CachedAttentionScratch(size_t head_dim) {
  // A tile of scores, 3 rows of numbers, 4 tiles of rows padded to at most 64 lanes, alignment.
  return 64 * 64 + 3 * 64 + 4 * 64 * ((head_dim + 63) / 64 * 64) + 16;
}

void CachedAttentionForward(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                            size_t first, size_t base, Mat<float> out, std::span<float> scratch) {
  HWY_DYNAMIC_DISPATCH_T(CachedAttentionForwardTable)(q, k, v, first, base, out, scratch);
}

void CachedAttentionPartial(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                            size_t first, size_t base, size_t begin, size_t end, Mat<float> part,
                            std::span<float> scratch) {
  HWY_DYNAMIC_DISPATCH_T(CachedAttentionPartialTable)
  (q, k, v, first, base, begin, end, part, scratch);
}

void CachedAttentionMerge(Mat<const float> parts, size_t chunks, Mat<float> out) {
  HWY_DYNAMIC_DISPATCH_T(CachedAttentionMergeTable)(parts, chunks, out);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
