// Attention of new tokens over a key/value cache, for inference. Single-threaded; does not
// allocate.
//
// One sequence, one key/value head: k, v [capacity, hd] are column ranges of the caches; q, out
// [n, G * hd] hold the G query heads that share this head for n new tokens, whose own keys and
// values are already in the cache. Token i sees the cache rows [first, base + i]: base is the row
// of token 0, first the start of the visible window. Scale 1/sqrt(hd).
#ifndef LANEWISE_KERNELS_CACHED_ATTENTION_H_
#define LANEWISE_KERNELS_CACHED_ATTENTION_H_

#include <cstddef>
#include <span>

#include "kernels/view.h"

namespace lanewise::kernels {

// Relative to the largest magnitude of the output, against reference/cached_attention.h in double.
inline constexpr double kCachedAttentionTolerance = 1e-5;

// Floats of scratch that the functions below need.
size_t CachedAttentionScratch(size_t head_dim);

// out [n, G * hd] is overwritten; it may be q's memory.
void CachedAttentionForward(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                            size_t first, size_t base, Mat<float> out, std::span<float> scratch);

// The share of the cache rows [begin, end), for several workers on one long cache. Row i * G + g of
// part [n * G, hd + 2] belongs to token i and head g: with s = log2(e) * score it gets the sum of
// 2^(s - m) v, then m = max s, then the sum of 2^(s - m). Where no key is visible the sums are
// zero.
void CachedAttentionPartial(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                            size_t first, size_t base, size_t begin, size_t end, Mat<float> part,
                            std::span<float> scratch);

// Merges `chunks` parts in their order: parts [chunks * n * G, hd + 2], out [n, G * hd].
void CachedAttentionMerge(Mat<const float> parts, size_t chunks, Mat<float> out);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_CACHED_ATTENTION_H_
