// Attention of new tokens over a key/value cache, for inference. Single-threaded; does not
// allocate.
//
// One sequence: k, v [capacity, kv_heads * hd] are (columns of) the caches; q, out [n, heads * hd]
// hold n new tokens, whose own keys and values are already in the cache; query head h uses
// key/value head h / (heads / kv_heads). Token i sees the cache rows [first, base + i]: base is the
// row of token 0, first the start of the visible window. Scale 1/sqrt(hd). A token that sees no row
// (first > base + i) gets NaN. A NaN or infinity in a row may reach, besides the tokens that see
// it, earlier ones of the same call. Caches may be bf16, half as much to read; they are widened,
// and all arithmetic is float32.
#ifndef LANEWISE_KERNELS_CACHED_ATTENTION_H_
#define LANEWISE_KERNELS_CACHED_ATTENTION_H_

#include <cstddef>
#include <span>

#include "kernels/view.h"

namespace lanewise::kernels {

// Relative to the largest magnitude among the visible values, against reference/cached_attention.h
// in double on the caches' own values, for |q_i| |k_j| / sqrt(hd) <= 100 (with more, it grows in
// proportion). Sums over rows round in one direction where their terms are equal: then by up to
// 2^-23 more for each visible row (seen: 5e-5 for 4096 rows, 4e-4 for 32768, 2e-3 for 131072).
inline constexpr double kCachedAttentionTolerance = 1e-5;

// With fewer than this many queries (tokens times query heads) for a key/value head, the cache is
// streamed once, row by row, for all heads of the call; from here on each head is computed by
// tiles.
inline constexpr size_t kCachedAttentionTileQueries = 6;

// Floats of scratch that the functions below need for n tokens of `heads` query heads.
size_t CachedAttentionScratch(size_t tokens, size_t heads, size_t head_dim);

// out [n, heads * hd] is overwritten; it may be q's memory.
void CachedAttentionForward(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                            size_t kv_heads, size_t first, size_t base, Mat<float> out,
                            std::span<float> scratch);
void CachedAttentionForward(Mat<const float> q, Mat<const BFloat16> k, Mat<const BFloat16> v,
                            size_t kv_heads, size_t first, size_t base, Mat<float> out,
                            std::span<float> scratch);

// The share of the cache rows [begin, end), for several workers on one cache. Row i * heads + h of
// part [n * heads, hd + 2] belongs to token i and head h: with s = log2(e) * score it gets the sum
// of 2^(s - m) v, then m = max s, then the sum of 2^(s - m). Where no key is visible the sums are
// zero.
void CachedAttentionPartial(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                            size_t kv_heads, size_t first, size_t base, size_t begin, size_t end,
                            Mat<float> part, std::span<float> scratch);
void CachedAttentionPartial(Mat<const float> q, Mat<const BFloat16> k, Mat<const BFloat16> v,
                            size_t kv_heads, size_t first, size_t base, size_t begin, size_t end,
                            Mat<float> part, std::span<float> scratch);

// Merges `chunks` parts in their order: parts [chunks * n * heads, hd + 2], out [n, heads * hd].
void CachedAttentionMerge(Mat<const float> parts, size_t chunks, Mat<float> out);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_CACHED_ATTENTION_H_
