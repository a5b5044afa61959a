// The WKV scan with slots (model/slot_rnn/README.md), fused with the functions in front of and
// behind it.
//
// Per channel i and slot s, with k = exp(clamp(k_raw, -10, 10)), u = exp(clamp(time_first, -10,
// 10)), a = sigmoid(decay_base + d_raw) * decay_scale, from the initial state:
//   y = (sum_s read[t,s] num[s] + u k v) / Dn,   Dn = sum_s read[t,s] den[s] + u k + 1e-6
//   ry = sigmoid(r_raw) y;   num[s] = a num[s] + write[t,s] k v;   den[s] = a den[s] + write[t,s] k
//
// One call is one sequence, or a chunk of its steps, over a range of channels: the arguments are
// row and column slices (WkvInputs::Cols, ::Rows). A state is a matrix [2*S, E], the S rows of num
// before those of den. Bits do not depend on how channels are cut as long as cuts are at multiples
// of kWkvBlock, nor on how steps are cut; the gradients of chunks agree to rounding.
// Single-threaded; nothing is allocated. Outputs must not alias inputs, with two exceptions: the
// state may be updated in place, and the gradients of r, k, v, d may overwrite these.
#ifndef LANEWISE_KERNELS_WKV_H_
#define LANEWISE_KERNELS_WKV_H_

#include <cstddef>
#include <span>
#include <type_traits>

#include "kernels/view.h"

namespace lanewise::kernels {

inline constexpr size_t kWkvMaxSlots = 32;
inline constexpr size_t kWkvBlock = 64;    // channels of one partial gate gradient
inline constexpr size_t kWkvSegment = 64;  // steps between two saved states

struct WkvInputs {
  Mat<const float> r, k, v, d;                    // [T,E]: x_r Wr, x_k Wk, x_v Wv, n lora_a lora_b
  Mat<const float> write, read;                   // [T,S], S >= 1: the gates after their softmax
  std::span<const float> decay_base, time_first;  // [E]
  std::span<const float> decay_scale;             // [E]: exp(-slope[head(i)])

  WkvInputs Cols(size_t begin, size_t count) const {
    return {r.Cols(begin, count),
            k.Cols(begin, count),
            v.Cols(begin, count),
            d.Cols(begin, count),
            write,
            read,
            decay_base.subspan(begin, count),
            time_first.subspan(begin, count),
            decay_scale.subspan(begin, count)};
  }
  WkvInputs Rows(size_t begin, size_t count) const {
    return {r.Rows(begin, count),
            k.Rows(begin, count),
            v.Rows(begin, count),
            d.Rows(begin, count),
            write.Rows(begin, count),
            read.Rows(begin, count),
            decay_base,
            time_first,
            decay_scale};
  }
};

// Saved states of T steps: one before step 0 and one before each further multiple of kWkvSegment.
constexpr size_t WkvCheckpoints(size_t steps) { return (steps + kWkvSegment - 1) / kWkvSegment; }

// What the backward pass needs. y - v is kept rather than y, because where the present token
// dominates the gradient of the key is a multiple of it, and would be lost in the rounding of y.
template <typename T>
struct WkvSave {
  Mat<T> offset;   // [T,E]: y - v
  Mat<T> inv_den;  // [T,E]: 1/Dn
  Mat<T> states;   // [WkvCheckpoints(T)*2S, E]

  WkvSave Cols(size_t begin, size_t count) const {
    if (offset.data == nullptr) return {};
    return {offset.Cols(begin, count), inv_den.Cols(begin, count), states.Cols(begin, count)};
  }
  operator WkvSave<const T>() const  // NOLINT(google-explicit-constructor): an output may be read
    requires(!std::is_const_v<T>)
  {
    return {offset, inv_den, states};
  }
};

// Runs steps [0, length); rows of ry, save.offset and save.inv_den from length on become zero,
// states that belong to later steps stay as they were. state_in [2S,E] (data null: zeros);
// state_out [2S,E], the state after step length-1, and save may have null data and are then not
// written. Error of ry, inv_den and state_out relative to their norms: below 2e-6 for random
// inputs; the sums of equal ones round in one direction, then by up to 2^-24 / (1 - a) more.
void WkvForward(const WkvInputs& in, size_t length, Mat<const float> state_in, Mat<float> ry,
                Mat<float> state_out, const WkvSave<float>& save);

// What follows the last step of a chunk that is not the last: both, since the gradient of the decay
// needs their product. Null data in both at the end of a window.
struct WkvEnd {
  Mat<const float> grad;   // [2S,E]: gradient of the state after the last step
  Mat<const float> state;  // [2S,E]: that state
};

struct WkvGradients {
  Mat<float> r, k, v, d;   // [T,E], overwritten; zero from row `length` on
  Mat<float> write, read;  // [T,S], overwritten with the sum over this call's channels
  std::span<float> decay_base, time_first;  // [E], accumulated
  Mat<float> state;  // [2S,E], overwritten: gradient of the initial state; or null
};

// The true gradient of WkvForward for the same inputs, length and initial state; dry [T,E]. Gate
// gradients are summed within each kWkvBlock of channels by a fixed tree, and the blocks of a call
// in order, so that adding the results of one-block calls in order gives the same bits. scratch
// holds WkvBackwardScratch(S) floats. Error relative to the norm of each gradient: below 5e-5 for d
// and decay_base, 1e-4 for the others, up to 8192 steps. But d is a difference, (e - w) sigmoid(-z)
// with z = decay_base + d_raw: e is the state after the step times its gradient, summed over its
// rows, w what the step's own token has of it. In a window of a few steps most of e can be w; the
// error of d and decay_base is then relative to the norm of (|e| + |w|) sigmoid(-z).
size_t WkvBackwardScratch(size_t slots);
void WkvBackward(const WkvInputs& in, size_t length, const WkvSave<const float>& saved,
                 const WkvEnd& end, Mat<const float> dry, const WkvGradients& out,
                 std::span<float> scratch);

// The chunk-parallel form in time: chunks of a multiple of kWkvSegment steps. All slots share one
// factor per channel. WkvChunk gives decay[i] = product of a over the chunk's steps [0, length) and
// local [2S,E], its end state from zero; WkvCarry then state_out = decay * state + local, serially;
// then WkvForward runs each chunk from its true start. Backward likewise: WkvChunkBackward gives
// the same decay and local, the gradient of the chunk's initial state with zero after its end, and
// WkvCarry takes the gradient from the later chunk to the earlier; then WkvBackward with `end`.
void WkvChunk(const WkvInputs& in, size_t length, std::span<float> decay, Mat<float> local);
void WkvChunkBackward(const WkvInputs& in, size_t length, const WkvSave<const float>& saved,
                      Mat<const float> dry, std::span<float> decay, Mat<float> local);
void WkvCarry(std::span<const float> decay, Mat<const float> local, Mat<const float> state,
              Mat<float> state_out);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_WKV_H_
