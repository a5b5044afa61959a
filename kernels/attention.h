// Causal attention of whole sequences, for training. Single-threaded; does not allocate.
//
// One sequence of T tokens; hd = k.cols is the head width, G = q.cols / hd the query heads that
// share the key/value head. All matrices may be column ranges of wider ones (q, k and v of one
// fused matrix). P[i,j] = exp(<q_i,k_j> / sqrt(hd) - lse_i) for j <= i, out_i = sum_j P[i,j] v_j.
// Work goes in tiles of queries and keys with an online softmax, after Dao et al., "FlashAttention"
// (arXiv 2205.14135); no buffer grows with T. Cutting the queries or keys at multiples of the tile
// or chunk below does not change a bit of the result.
// A NaN or infinity in key or value j may reach, besides the queries i >= j, those of j's tile.
#ifndef LANEWISE_KERNELS_ATTENTION_H_
#define LANEWISE_KERNELS_ATTENTION_H_

#include <cstddef>
#include <span>

#include "kernels/view.h"

namespace lanewise::kernels {

inline constexpr size_t kAttentionQueryTile = 64;
inline constexpr size_t kAttentionKeyChunk = 256;

// Error against reference/attention.h in double, for T <= 4096 and |q_i| |k_j| / sqrt(hd) <= 100
// (|.| of a vector is its norm; with more, it grows in proportion): of out relative to the largest
// magnitude in v, of lse to 1 + max |q_i| |k_j| / sqrt(hd), of dv, dq and dk to the largest element
// of, with magnitudes for vectors and D = max |dout_i| max |v_j| / sqrt(hd), sum_i P[i,j] dout_i,
// D sum_j P[i,j] k_j and D sum_i P[i,j] q_i. So dq and dk of a single key are zero but for
// rounding. Sums over tokens round in one direction where their terms are equal (all P[i,j], and
// all v_j or dout_i): then by up to 2^-23 T more (seen: a tenth of it).
inline constexpr double kAttentionTolerance = 4e-6;

// Floats of scratch that any function below needs.
size_t AttentionScratch(size_t head_dim);

// Queries [begin, end) of one head (G = 1): q, k, v [T, hd]; writes out [T, hd] and the log-sum-exp
// lse [T] in those rows. out may be q's memory if each tile of queries is passed once.
void AttentionForward(Mat<const float> q, Mat<const float> k, Mat<const float> v, size_t begin,
                      size_t end, Mat<float> out, std::span<float> lse, std::span<float> scratch);

// delta[r] = sum_c out[r,c] * dout[r,c], which the backward pass needs of each head. [R, hd], [R].
void AttentionDelta(Mat<const float> out, Mat<const float> dout, std::span<float> delta);

// The whole gradient for one key/value head: q, dout [T, G * hd], lse and delta [G, T].
// dq [T, G * hd], dk and dv [T, hd] are overwritten; none may alias an input.
void AttentionBackward(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                       Mat<const float> lse, Mat<const float> delta, Mat<const float> dout,
                       Mat<float> dq, Mat<float> dk, Mat<float> dv, std::span<float> scratch);

// The same in two independent parts, for more parallelism at 7/5 of the work:
// rows [begin, end) of dk and dv (begin a multiple of kAttentionKeyChunk), ...
void AttentionBackwardKeys(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                           Mat<const float> lse, Mat<const float> delta, Mat<const float> dout,
                           size_t begin, size_t end, Mat<float> dk, Mat<float> dv,
                           std::span<float> scratch);

// ... and rows [begin, end) of dq of one head (G = 1; begin a multiple of kAttentionQueryTile).
void AttentionBackwardQueries(Mat<const float> q, Mat<const float> k, Mat<const float> v,
                              std::span<const float> lse, std::span<const float> delta,
                              Mat<const float> dout, size_t begin, size_t end, Mat<float> dq,
                              std::span<float> scratch);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_ATTENTION_H_
