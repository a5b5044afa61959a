#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/attention-inl.h"
#include "kernels/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace attention {

// Writes out = state.out / sum and the log-sum-exp.
HWY_INLINE void Finish(F32 d, const OnlineSoftmax& state, Mat<float> out, float* lse) {
  const size_t lanes = hn::Lanes(d);
  const size_t whole = out.cols - out.cols % lanes;
  for (size_t i = 0; i < out.rows; ++i) {
    const V32 factor = hn::Set(d, 1.0f / state.sum[i]);
    const float* const row = state.out + i * state.stride;
    float* const to = out.Row(i);
    for (size_t c = 0; c < whole; c += lanes) {
      hn::StoreU(hn::Mul(hn::LoadU(d, row + c), factor), d, to + c);
    }
    if (whole != out.cols) {
      hn::StoreN(hn::Mul(hn::LoadU(d, row + whole), factor), d, to + whole, out.cols - whole);
    }
  }
  for (size_t i = 0; i < out.rows; i += lanes) {
    const V32 log_sum = Log(d, hn::LoadU(d, state.sum + i));
    const V32 value = hn::MulAdd(hn::LoadU(d, state.max + i), hn::Set(d, kLn2), log_sum);
    hn::StoreN(value, d, lse + i, std::min(lanes, out.rows - i));
  }
}

// So many tiles of queries go through the keys together: keys and values are packed once for all.
inline constexpr size_t kForwardTiles = 4;

// In sequences of this length the keys and values of one head, spread over the rows of a wide
// matrix, no longer stay in the cache from one block to the next, and copying each tile pays.
inline constexpr size_t kCopyFrom = 1024;

struct ForwardTile {
  size_t q0;
  size_t queries;
  float* qt;  // [head_dim, kTile]
  OnlineSoftmax state;
};

void ForwardImpl(Mat<const float> q, Mat<const float> k, Mat<const float> v, size_t begin,
                 size_t end, Mat<float> out, std::span<float> lse, std::span<float> scratch) {
  const F32 d;
  const size_t head_dim = k.cols;
  const size_t stride = RoundUp(head_dim, hn::Lanes(d));
  Scratch memory(scratch);
  ForwardTile tiles[kForwardTiles];
  for (ForwardTile& tile : tiles) {
    tile.qt = memory.Take(head_dim * kTile);
    tile.state = {memory.Take(kTile), memory.Take(kTile), memory.Take(kTile),
                  memory.Take(kTile * stride), stride};
  }
  float* const scores = memory.Take(kTile * kTile);
  float* const kp = memory.Take(kTile * stride);
  float* const vp = memory.Take(kTile * stride);
  const bool copy = k.rows >= kCopyFrom;
  for (size_t block = begin; block < end; block += kForwardTiles * kTile) {
    const size_t block_end = std::min(end, block + kForwardTiles * kTile);
    const size_t count = (block_end - block + kTile - 1) / kTile;
    for (size_t t = 0; t < count; ++t) {
      ForwardTile& tile = tiles[t];
      tile.q0 = block + t * kTile;
      tile.queries = std::min(kTile, block_end - tile.q0);
      PackTransposed(q.Rows(tile.q0, tile.queries), Scale(head_dim) * kLog2E, tile.qt);
      std::fill_n(tile.state.max, kTile, std::numeric_limits<float>::lowest());
      std::fill_n(tile.state.sum, kTile, 0.0f);
    }
    for (size_t k0 = 0; k0 < block_end; k0 += kTile) {
      const size_t keys = std::min(kTile, block_end - k0);
      const PackedRows kr = RowsOrCopy(d, ReadAs::kWholeBlocks, k.Rows(k0, keys), copy, kp, stride);
      const PackedRows vr =
          RowsOrCopy(d, ReadAs::kWholeVectors, v.Rows(k0, keys), copy, vp, stride);
      for (size_t t = 0; t < count; ++t) {
        const ForwardTile& tile = tiles[t];
        if (k0 >= tile.q0 + tile.queries) continue;
        const Extent extent = {std::min(keys, tile.q0 + tile.queries - k0), tile.queries,
                               static_cast<ptrdiff_t>(tile.q0 + 1) - static_cast<ptrdiff_t>(k0)};
        Scores(d, extent, kr.data, kr.stride, head_dim, tile.qt, scores);
        const bool corrected = SoftmaxTile(d, extent, scores, tile.state);
        AddValues(d, extent, scores, vr, k0 == 0, corrected, tile.state);
      }
    }
    for (size_t t = 0; t < count; ++t) {
      const ForwardTile& tile = tiles[t];
      Finish(d, tile.state, out.Rows(tile.q0, tile.queries), lse.data() + tile.q0);
    }
  }
}

void DeltaImpl(Mat<const float> out, Mat<const float> dout, std::span<float> delta) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const size_t whole = out.cols - out.cols % lanes;
  for (size_t r = 0; r < out.rows; ++r) {
    const float* const a = out.Row(r);
    const float* const b = dout.Row(r);
    V32 sum = hn::Zero(d);
    for (size_t c = 0; c < whole; c += lanes) {
      sum = hn::MulAdd(hn::LoadU(d, a + c), hn::LoadU(d, b + c), sum);
    }
    if (const size_t rest = out.cols - whole; rest != 0) {
      sum = hn::MulAdd(hn::LoadN(d, a + whole, rest), hn::LoadN(d, b + whole, rest), sum);
    }
    delta[r] = hn::ReduceSum(d, sum);
  }
}

// A tile of queries, packed for the backward pass.
struct QueryTile {
  size_t q0;
  size_t queries;
  float* qt;     // [head_dim, kTile], times scale * log2(e)
  float* dot;    // [head_dim, kTile]
  float* lse;    // [kTile], base 2
  float* delta;  // [kTile]
  float* dq;     // [kTile, stride], without the scale
  PackedRows q, dout;
  float *q_copy, *dout_copy;  // [kTile, stride]
};

// Keys and values, and their gradients (dk without the scale) in blocks of rows.
struct KeyRange {
  PackedRows k, v;
  float *k_copy, *v_copy;  // all [RoundUp(keys, kRowBlock), stride]
  float *dk, *dv;
};

// Buffers of the backward pass, for `keys` keys at a time.
struct BackwardBuffers {
  BackwardBuffers(std::span<float> scratch, size_t head_dim, size_t lanes, size_t keys)
      : stride(RoundUp(head_dim, lanes)) {
    Scratch memory(scratch);
    p = memory.Take(kTile * kTile);
    ds = memory.Take(kTile * kTile);
    tile.qt = memory.Take(head_dim * kTile);
    tile.dot = memory.Take(head_dim * kTile);
    tile.q_copy = memory.Take(kTile * stride);
    tile.dout_copy = memory.Take(kTile * stride);
    tile.lse = memory.Take(kTile);
    tile.delta = memory.Take(kTile);
    tile.dq = memory.Take(kTile * stride);
    range.k_copy = memory.Take(keys * stride);
    range.v_copy = memory.Take(keys * stride);
    range.dk = memory.Take(keys * stride);
    range.dv = memory.Take(keys * stride);
  }
  size_t stride;
  float* p;
  float* ds;
  QueryTile tile;
  KeyRange range;
};

HWY_INLINE void PackQueries(F32 d, Mat<const float> q, Mat<const float> dout, const float* lse,
                            const float* delta, size_t q0, size_t stride, bool copy,
                            QueryTile& tile) {
  tile.q0 = q0;
  tile.queries = q.rows;
  PackTransposed(q, Scale(q.cols) * kLog2E, tile.qt);
  PackTransposed(dout, 1.0f, tile.dot);
  tile.q = RowsOrCopy(d, ReadAs::kWholeVectors, q, copy, tile.q_copy, stride);
  tile.dout = RowsOrCopy(d, ReadAs::kWholeVectors, dout, copy, tile.dout_copy, stride);
  std::fill_n(tile.lse, kTile, 0.0f);
  std::fill_n(tile.delta, kTile, 0.0f);
  for (size_t i = 0; i < q.rows; ++i) tile.lse[i] = lse[q0 + i] * kLog2E;
  std::copy_n(delta + q0, q.rows, tile.delta);
}

// p = exp2(p - lse) and ds = p * (ds - delta) where seen, else 0.
HWY_INLINE void ProbabilityTile(F32 d, const Extent& extent, const QueryTile& tile,
                                float* HWY_RESTRICT p, float* HWY_RESTRICT ds) {
  const size_t lanes = hn::Lanes(d);
  const V32 zero = hn::Zero(d);
  for (size_t lane = 0; lane < extent.queries; lane += lanes) {
    const size_t rows = extent.RowsFor(lane + lanes);
    const size_t mask_from = std::min(rows, extent.MaskFrom(lane));
    const V32 lse = hn::LoadU(d, tile.lse + lane);
    const V32 delta = hn::LoadU(d, tile.delta + lane);
    float* pj = p + lane;
    float* dsj = ds + lane;
    size_t j = 0;
    for (; j < mask_from; ++j, pj += kTile, dsj += kTile) {
      const V32 pv = Exp2(d, hn::Sub(hn::LoadU(d, pj), lse));
      hn::StoreU(pv, d, pj);
      hn::StoreU(hn::Mul(pv, hn::Sub(hn::LoadU(d, dsj), delta)), d, dsj);
    }
    for (; j < rows; ++j, pj += kTile, dsj += kTile) {
      const V32 pv = Exp2(d, hn::Sub(hn::LoadU(d, pj), lse));
      const V32 dsv = hn::Mul(pv, hn::Sub(hn::LoadU(d, dsj), delta));
      hn::StoreU(Masked(d, extent, j, lane, pv, zero), d, pj);
      hn::StoreU(Masked(d, extent, j, lane, dsv, zero), d, dsj);
    }
    const size_t rows_read = extent.RowsRead(lane + lanes);
    for (; j < rows_read; ++j, pj += kTile, dsj += kTile) {
      hn::StoreU(zero, d, pj);
      hn::StoreU(zero, d, dsj);
    }
  }
}

// What one tile of queries and one of keys give to dq (if kQueries) and to dk and dv (if kKeys).
// `key` is the tile's first row in the range, `visible` as in Extent.
template <bool kQueries, bool kKeys>
HWY_INLINE void BackwardTile(F32 d, const Extent& extent, size_t head_dim, size_t key,
                             bool first_for_dq, const BackwardBuffers& b) {
  const size_t stride = b.stride;
  const size_t vectors = stride / hn::Lanes(d);
  const QueryTile& tile = b.tile;
  const PackedRows k = {b.range.k.data + key * b.range.k.stride, b.range.k.stride};
  const PackedRows v = {b.range.v.data + key * b.range.v.stride, b.range.v.stride};
  Scores(d, extent, k.data, k.stride, head_dim, tile.qt, b.p);
  Scores(d, extent, v.data, v.stride, head_dim, tile.dot, b.ds);
  ProbabilityTile(d, extent, tile, b.p, b.ds);
  if constexpr (kKeys) {
    for (size_t j = 0; j < extent.keys; j += kRowBlock) {
      const size_t i = extent.FirstLane(j);
      if (i >= extent.queries) break;
      const size_t depth = extent.queries - i;
      float* const dk = b.range.dk + (key + j) * stride;
      float* const dv = b.range.dv + (key + j) * stride;
      ProductRows<false>(d, b.p + j * kTile + i, kTile, tile.dout.data + i * tile.dout.stride,
                         tile.dout.stride, depth, vectors, dv, stride, true);
      ProductRows<false>(d, b.ds + j * kTile + i, kTile, tile.q.data + i * tile.q.stride,
                         tile.q.stride, depth, vectors, dk, stride, true);
    }
  }
  if constexpr (kQueries) {
    for (size_t i = 0; i < extent.queries; i += kRowBlock) {
      const size_t depth = std::min(extent.keys, extent.RowsFor(i + kRowBlock));
      if (depth == 0 && !first_for_dq) continue;
      ProductRows<true>(d, b.ds + i, kTile, k.data, k.stride, depth, vectors, tile.dq + i * stride,
                        stride, !first_for_dq);
    }
  }
}

// to = (or +=) scale * from, with to.cols columns.
HWY_INLINE void Unpack(F32 d, const float* from, size_t stride, float scale, bool accumulate,
                       Mat<float> to) {
  const size_t lanes = hn::Lanes(d);
  const V32 factor = hn::Set(d, scale);
  const size_t whole = to.cols - to.cols % lanes;
  for (size_t r = 0; r < to.rows; ++r) {
    const float* const row = from + r * stride;
    float* const out = to.Row(r);
    for (size_t c = 0; c < whole; c += lanes) {
      V32 x = hn::Mul(hn::LoadU(d, row + c), factor);
      if (accumulate) x = hn::Add(x, hn::LoadU(d, out + c));
      hn::StoreU(x, d, out + c);
    }
    if (const size_t rest = to.cols - whole; rest != 0) {
      V32 x = hn::Mul(hn::LoadU(d, row + whole), factor);
      if (accumulate) x = hn::Add(x, hn::LoadN(d, out + whole, rest));
      hn::StoreN(x, d, out + whole, rest);
    }
  }
}

// dk and dv of the keys [begin, end) and, if kQueries, what these keys give to dq: overwritten by
// the keys that begin at 0, accumulated by later ones.
template <bool kQueries>
HWY_INLINE void BackwardChunk(F32 d, Mat<const float> q, Mat<const float> k, Mat<const float> v,
                              Mat<const float> lse, Mat<const float> delta, Mat<const float> dout,
                              size_t begin, size_t end, Mat<float> dq, Mat<float> dk, Mat<float> dv,
                              BackwardBuffers& b) {
  const size_t head_dim = k.cols;
  const size_t keys = end - begin;
  const bool copy = k.rows >= kCopyFrom;
  b.range.k = RowsOrCopy(d, kQueries ? ReadAs::kBoth : ReadAs::kWholeBlocks, k.Rows(begin, keys),
                         copy, b.range.k_copy, b.stride);
  b.range.v =
      RowsOrCopy(d, ReadAs::kWholeBlocks, v.Rows(begin, keys), copy, b.range.v_copy, b.stride);
  std::fill_n(b.range.dk, RoundUp(keys, kRowBlock) * b.stride, 0.0f);
  std::fill_n(b.range.dv, RoundUp(keys, kRowBlock) * b.stride, 0.0f);
  for (size_t head = 0; head < lse.rows; ++head) {
    const Mat<const float> qh = q.Cols(head * head_dim, head_dim);
    const Mat<const float> doh = dout.Cols(head * head_dim, head_dim);
    for (size_t q0 = begin; q0 < q.rows; q0 += kTile) {
      const size_t queries = std::min(kTile, q.rows - q0);
      PackQueries(d, qh.Rows(q0, queries), doh.Rows(q0, queries), lse.Row(head), delta.Row(head),
                  q0, b.stride, copy, b.tile);
      for (size_t k0 = begin; k0 < std::min(end, q0 + queries); k0 += kTile) {
        const Extent extent = {std::min({kTile, end - k0, q0 + queries - k0}), queries,
                               static_cast<ptrdiff_t>(q0 + 1) - static_cast<ptrdiff_t>(k0)};
        BackwardTile<kQueries, true>(d, extent, head_dim, k0 - begin, k0 == begin, b);
      }
      if constexpr (kQueries) {
        Unpack(d, b.tile.dq, b.stride, Scale(head_dim), begin != 0,
               dq.Cols(head * head_dim, head_dim).Rows(q0, queries));
      }
    }
  }
  Unpack(d, b.range.dk, b.stride, Scale(head_dim), false, dk.Rows(begin, keys));
  Unpack(d, b.range.dv, b.stride, 1.0f, false, dv.Rows(begin, keys));
}

void BackwardImpl(Mat<const float> q, Mat<const float> k, Mat<const float> v, Mat<const float> lse,
                  Mat<const float> delta, Mat<const float> dout, Mat<float> dq, Mat<float> dk,
                  Mat<float> dv, std::span<float> scratch) {
  const F32 d;
  BackwardBuffers buffers(scratch, k.cols, hn::Lanes(d), kAttentionKeyChunk);
  for (size_t begin = 0; begin < k.rows; begin += kAttentionKeyChunk) {
    BackwardChunk<true>(d, q, k, v, lse, delta, dout, begin,
                        std::min(k.rows, begin + kAttentionKeyChunk), dq, dk, dv, buffers);
  }
}

void BackwardKeysImpl(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                      Mat<const float> lse, Mat<const float> delta, Mat<const float> dout,
                      size_t begin, size_t end, Mat<float> dk, Mat<float> dv,
                      std::span<float> scratch) {
  const F32 d;
  BackwardBuffers buffers(scratch, k.cols, hn::Lanes(d), kAttentionKeyChunk);
  for (; begin < end; begin += kAttentionKeyChunk) {
    BackwardChunk<false>(d, q, k, v, lse, delta, dout, begin,
                         std::min(end, begin + kAttentionKeyChunk), {}, dk, dv, buffers);
  }
}

void BackwardQueriesImpl(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                         std::span<const float> lse, std::span<const float> delta,
                         Mat<const float> dout, size_t begin, size_t end, Mat<float> dq,
                         std::span<float> scratch) {
  const F32 d;
  const size_t head_dim = k.cols;
  BackwardBuffers b(scratch, head_dim, hn::Lanes(d), kTile);
  const bool copy = k.rows >= kCopyFrom;
  for (size_t q0 = begin; q0 < end; q0 += kTile) {
    const size_t queries = std::min(kTile, end - q0);
    PackQueries(d, q.Rows(q0, queries), dout.Rows(q0, queries), lse.data(), delta.data(), q0,
                b.stride, copy, b.tile);
    for (size_t k0 = 0; k0 < q0 + queries; k0 += kTile) {
      const Extent extent = {std::min(kTile, q0 + queries - k0), queries,
                             static_cast<ptrdiff_t>(q0 + 1) - static_cast<ptrdiff_t>(k0)};
      b.range.k =
          RowsOrCopy(d, ReadAs::kBoth, k.Rows(k0, extent.keys), copy, b.range.k_copy, b.stride);
      b.range.v = RowsOrCopy(d, ReadAs::kWholeBlocks, v.Rows(k0, extent.keys), copy, b.range.v_copy,
                             b.stride);
      BackwardTile<true, false>(d, extent, head_dim, 0, k0 == 0, b);
    }
    Unpack(d, b.tile.dq, b.stride, Scale(head_dim), false, dq.Rows(q0, queries));
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace attention
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {

HWY_EXPORT_T(AttentionForwardTable, attention::ForwardImpl);
HWY_EXPORT_T(AttentionDeltaTable, attention::DeltaImpl);
HWY_EXPORT_T(AttentionBackwardTable, attention::BackwardImpl);
HWY_EXPORT_T(AttentionBackwardKeysTable, attention::BackwardKeysImpl);
HWY_EXPORT_T(AttentionBackwardQueriesTable, attention::BackwardQueriesImpl);

size_t AttentionScratch(size_t head_dim) {
  // The backward pass needs most: 2 tiles of scores, 3 rows of numbers, 5 tiles of queries and 4
  // chunks of keys, each row padded to at most 64 lanes, and room to align the first piece.
  const size_t stride = (head_dim + 63) / 64 * 64;
  return 2 * 64 * 64 + 3 * 64 + (5 * kAttentionQueryTile + 4 * kAttentionKeyChunk) * stride + 16;
}

void AttentionForward(Mat<const float> q, Mat<const float> k, Mat<const float> v, size_t begin,
                      size_t end, Mat<float> out, std::span<float> lse, std::span<float> scratch) {
  HWY_DYNAMIC_DISPATCH_T(AttentionForwardTable)(q, k, v, begin, end, out, lse, scratch);
}

void AttentionDelta(Mat<const float> out, Mat<const float> dout, std::span<float> delta) {
  HWY_DYNAMIC_DISPATCH_T(AttentionDeltaTable)(out, dout, delta);
}

void AttentionBackward(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                       Mat<const float> lse, Mat<const float> delta, Mat<const float> dout,
                       Mat<float> dq, Mat<float> dk, Mat<float> dv, std::span<float> scratch) {
  HWY_DYNAMIC_DISPATCH_T(AttentionBackwardTable)
  (q, k, v, lse, delta, dout, dq, dk, dv, scratch);
}

void AttentionBackwardKeys(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                           Mat<const float> lse, Mat<const float> delta, Mat<const float> dout,
                           size_t begin, size_t end, Mat<float> dk, Mat<float> dv,
                           std::span<float> scratch) {
  HWY_DYNAMIC_DISPATCH_T(AttentionBackwardKeysTable)
  (q, k, v, lse, delta, dout, begin, end, dk, dv, scratch);
}

void AttentionBackwardQueries(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                              std::span<const float> lse, std::span<const float> delta,
                              Mat<const float> dout, size_t begin, size_t end, Mat<float> dq,
                              std::span<float> scratch) {
  HWY_DYNAMIC_DISPATCH_T(AttentionBackwardQueriesTable)
  (q, k, v, lse, delta, dout, begin, end, dq, scratch);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
