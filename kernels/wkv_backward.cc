// The backward pass of the WKV scan. Segments are taken from the last to the first; within one,
// pass F recomputes the states forward in time from the saved one, and pass R runs their gradient
// backward. The gradient of the decay needs E_t = sum_s G_t state_t, which follows from a
// recurrence without the states but drifts; it is started anew from recomputed states every kReseed
// steps.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/wkv.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/wkv_backward.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/wkv-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using wkv::D;
using wkv::Gate;
using wkv::LoadPart;
using wkv::StorePart;
using wkv::V;

constexpr size_t kReseed = 8;
constexpr size_t kParts = kWkvSegment / kReseed;
constexpr size_t kAlignFloats = 16;
// Steps taken together: few, so that what passes from one loop to the next stays in the first-level
// cache.
constexpr size_t kTile = 16;
static_assert(kWkvSegment % kTile == 0 && kTile % kReseed == 0);

// What pass F leaves for pass R: these vectors of each step, side by side.
enum StagedVector : size_t { kK, kKv, kA, kP, kQ, kMinusZ, kStagedVectors };

// Scratch memory of one segment.
struct Stage {
  float* steps;         // [step][kStagedVectors][lane]: key, k v, a, p, q, sigmoid(-z)
  float *rn, *rd;       // [step of a tile][lane]
  float* states;        // [kParts][2 * slots][lane]: states before steps 0, kReseed, ...
  float* seeds;         // [kParts][lane]: E at these steps
  float *write, *read;  // [group of 4 slots][step][lane]: gate gradients, see AddGates
  float* grad;          // [vector of the block][2 * slots][lane]: gradient of the states
};

// Places the stage in scratch, or with null scratch only counts floats.
size_t Place(float* scratch, size_t slots, size_t lanes, Stage& stage) {
  size_t used = 0;
  const auto take = [&](size_t count) {
    float* const place = scratch == nullptr ? nullptr : scratch + used;
    used += (count + kAlignFloats - 1) / kAlignFloats * kAlignFloats;
    return place;
  };
  const size_t gates = (slots + 3) / 4 * (kWkvSegment * lanes + kAlignFloats);
  stage.steps = take(kWkvSegment * kStagedVectors * lanes);
  stage.rn = take(kTile * lanes);
  stage.rd = take(kTile * lanes);
  stage.states = take(kParts * 2 * slots * lanes);
  stage.seeds = take(kParts * lanes);
  stage.write = take(gates);
  stage.read = take(gates);
  stage.grad = take(2 * slots * kWkvBlock);
  return used;
}

// One vector of channels of one segment.
struct Segment {
  size_t steps, slots;
  Gate write, read;
  Stage stage;
  float* grad;  // this vector's part of stage.grad

  // Vector `which` of step t.
  float* At(D d, size_t t, StagedVector which) const {
    return stage.steps + (t * kStagedVectors + which) * hn::Lanes(d);
  }
  // num or (with slot >= slots) den of `slot`, saved before a step that is a multiple of kReseed.
  float* State(D d, size_t t, size_t slot) const {
    return stage.states + (t / kReseed * 2 * slots + slot) * hn::Lanes(d);
  }
};

// Steps [begin, end) of a segment; begin is a multiple of kTile.
struct Tile {
  size_t begin, end;
};

// Where the gate gradients of the group that begins with slot `first` are accumulated.
HWY_INLINE float* GateGroup(D d, float* gates, size_t first) {
  return gates + first / 4 * (kWkvSegment * hn::Lanes(d) + kAlignFloats);
}

// In each block of four lanes: x0+x2, y0+y2, x1+x3, y1+y3.
HWY_INLINE V FoldPair(D d, V x, V y) {
  return hn::Add(hn::InterleaveLower(d, x, y), hn::InterleaveUpper(d, x, y));
}

// Adds the gradients of up to four slots, of which each lane has a part, to one vector: in each
// block of four lanes, the slots' sums over these lanes. FinishGates adds the blocks. With two
// slots, the block has each sum in two parts; with one it is left as it is.
template <size_t kSlots, bool kFirstVector>
HWY_INLINE void AddGates(D d, V g0, V g1, V g2, V g3, float* to) {
  V sums = g0;
  if constexpr (kSlots > 1) sums = FoldPair(d, g0, g1);
  if constexpr (kSlots > 2) {
    const hn::Repartition<uint64_t, D> pairs;
    const auto low = hn::BitCast(pairs, sums);
    const auto high = hn::BitCast(pairs, FoldPair(d, g2, g3));
    sums = hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, low, high)),
                   hn::BitCast(d, hn::InterleaveUpper(pairs, low, high)));
  }
  hn::Store(kFirstVector ? sums : hn::Add(hn::Load(d, to), sums), d, to);
}

template <size_t kSlots>
HWY_INLINE void LoadStates(D d, const float* num, const float* den, V& n0, V& d0, V& n1, V& d1,
                           V& n2, V& d2, V& n3, V& d3) {
  const size_t N = hn::Lanes(d);
  n0 = hn::Load(d, num), d0 = hn::Load(d, den);
  if constexpr (kSlots > 1) n1 = hn::Load(d, num + N), d1 = hn::Load(d, den + N);
  if constexpr (kSlots > 2) n2 = hn::Load(d, num + 2 * N), d2 = hn::Load(d, den + 2 * N);
  if constexpr (kSlots > 3) n3 = hn::Load(d, num + 3 * N), d3 = hn::Load(d, den + 3 * N);
}

template <size_t kSlots>
HWY_INLINE void StoreStates(D d, V n0, V d0, V n1, V d1, V n2, V d2, V n3, V d3, float* num,
                            float* den) {
  const size_t N = hn::Lanes(d);
  hn::Store(n0, d, num), hn::Store(d0, d, den);
  if constexpr (kSlots > 1) hn::Store(n1, d, num + N), hn::Store(d1, d, den + N);
  if constexpr (kSlots > 2) hn::Store(n2, d, num + 2 * N), hn::Store(d2, d, den + 2 * N);
  if constexpr (kSlots > 3) hn::Store(n3, d, num + 3 * N), hn::Store(d3, d, den + 3 * N);
}

// Pass F for slots [first, first + kSlots), kSlots <= 4. Starts from the saved state before the
// tile and saves that after it, unless the segment ends.
template <size_t kSlots, bool kFirstVector>
void StatesForward(D d, const Segment& seg, Tile tile, size_t first) {
  const V zero = hn::Zero(d);
  V n0 = zero, n1 = zero, n2 = zero, n3 = zero, d0 = zero, d1 = zero, d2 = zero, d3 = zero;
  LoadStates<kSlots>(d, seg.State(d, tile.begin, first),
                     seg.State(d, tile.begin, seg.slots + first), n0, d0, n1, d1, n2, d2, n3, d3);
  float* const gates = GateGroup(d, seg.stage.read, first);
  // Returns the slot's gate gradient, lane by lane.
  const auto step = [](V p, V q, V a, float w, V k, V kv, V& num, V& den) HWY_ATTR {
    const V gate = hn::MulAdd(p, num, hn::Mul(q, den));
    wkv::Update(a, hn::Set(D(), w), kv, k, num, den);
    return gate;
  };
  for (size_t t = tile.begin; t < tile.end;) {
    const V k = hn::Load(d, seg.At(d, t, kK));
    const V kv = hn::Load(d, seg.At(d, t, kKv));
    const V a = hn::Load(d, seg.At(d, t, kA));
    const V p = hn::Load(d, seg.At(d, t, kP));
    const V q = hn::Load(d, seg.At(d, t, kQ));
    const float* const w = seg.write.data + t * seg.write.stride + first;
    const V g0 = step(p, q, a, w[0], k, kv, n0, d0);
    V g1 = zero, g2 = zero, g3 = zero;
    if constexpr (kSlots > 1) g1 = step(p, q, a, w[1], k, kv, n1, d1);
    if constexpr (kSlots > 2) g2 = step(p, q, a, w[2], k, kv, n2, d2);
    if constexpr (kSlots > 3) g3 = step(p, q, a, w[3], k, kv, n3, d3);
    AddGates<kSlots, kFirstVector>(d, g0, g1, g2, g3, gates + t * hn::Lanes(d));
    ++t;
    if (t % kReseed == 0 && t < seg.steps) {
      StoreStates<kSlots>(d, n0, d0, n1, d1, n2, d2, n3, d3, seg.State(d, t, first),
                          seg.State(d, t, seg.slots + first));
    }
  }
}

// Pass R for slots [first, first + kSlots), kSlots <= 4.
template <size_t kSlots, bool kFirstVector>
void GradientBackward(D d, const Segment& seg, Tile tile, size_t first) {
  const size_t N = hn::Lanes(d);
  const Stage& st = seg.stage;
  float* const nums = seg.grad + first * N;
  float* const dens = seg.grad + (seg.slots + first) * N;
  const V zero = hn::Zero(d);
  V n0 = zero, n1 = zero, n2 = zero, n3 = zero, d0 = zero, d1 = zero, d2 = zero, d3 = zero;
  LoadStates<kSlots>(d, nums, dens, n0, d0, n1, d1, n2, d2, n3, d3);
  float* const gates = GateGroup(d, st.write, first);
  // Returns the slot's gate gradient, lane by lane.
  const auto step = [](V p, V q, V a, float w, float r, V k, V kv, V& num, V& den, V& rn, V& rd)
                        HWY_ATTR {
                          const V write = hn::Set(D(), w);
                          rn = hn::MulAdd(write, num, rn);
                          rd = hn::MulAdd(write, den, rd);
                          const V gate = hn::MulAdd(kv, num, hn::Mul(k, den));
                          wkv::Update(a, hn::Set(D(), r), p, q, num, den);
                          return gate;
                        };
  for (size_t t = tile.end; t-- > tile.begin;) {
    const V k = hn::Load(d, seg.At(d, t, kK));
    const V kv = hn::Load(d, seg.At(d, t, kKv));
    const V a = hn::Load(d, seg.At(d, t, kA));
    const V p = hn::Load(d, seg.At(d, t, kP));
    const V q = hn::Load(d, seg.At(d, t, kQ));
    float* const rn_at = st.rn + t % kTile * N;
    float* const rd_at = st.rd + t % kTile * N;
    V rn = first == 0 ? zero : hn::Load(d, rn_at);
    V rd = first == 0 ? zero : hn::Load(d, rd_at);
    const float* const w = seg.write.data + t * seg.write.stride + first;
    const float* const r = seg.read.data + t * seg.read.stride + first;
    const V g0 = step(p, q, a, w[0], r[0], k, kv, n0, d0, rn, rd);
    V g1 = zero, g2 = zero, g3 = zero;
    if constexpr (kSlots > 1) g1 = step(p, q, a, w[1], r[1], k, kv, n1, d1, rn, rd);
    if constexpr (kSlots > 2) g2 = step(p, q, a, w[2], r[2], k, kv, n2, d2, rn, rd);
    if constexpr (kSlots > 3) g3 = step(p, q, a, w[3], r[3], k, kv, n3, d3, rn, rd);
    AddGates<kSlots, kFirstVector>(d, g0, g1, g2, g3, gates + t * N);
    hn::Store(rn, d, rn_at);
    hn::Store(rd, d, rd_at);
    if (t % kReseed == 0 && t != 0) {
      V s0 = zero, s1 = zero, s2 = zero, s3 = zero, e0 = zero, e1 = zero, e2 = zero, e3 = zero;
      LoadStates<kSlots>(d, seg.State(d, t, first), seg.State(d, t, seg.slots + first), s0, e0, s1,
                         e1, s2, e2, s3, e3);
      float* const seed = st.seeds + t / kReseed * N;
      V sum = first == 0 ? zero : hn::Load(d, seed);
      sum = hn::MulAdd(d0, e0, hn::MulAdd(n0, s0, sum));
      if constexpr (kSlots > 1) sum = hn::MulAdd(d1, e1, hn::MulAdd(n1, s1, sum));
      if constexpr (kSlots > 2) sum = hn::MulAdd(d2, e2, hn::MulAdd(n2, s2, sum));
      if constexpr (kSlots > 3) sum = hn::MulAdd(d3, e3, hn::MulAdd(n3, s3, sum));
      hn::Store(sum, d, seed);
    }
  }
  StoreStates<kSlots>(d, n0, d0, n1, d1, n2, d2, n3, d3, nums, dens);
}

template <bool kFirstVector>
void StatesForwardAll(D d, const Segment& seg, Tile tile) {
  size_t first = 0;
  for (; first + 4 <= seg.slots; first += 4) StatesForward<4, kFirstVector>(d, seg, tile, first);
  if (seg.slots - first == 1) StatesForward<1, kFirstVector>(d, seg, tile, first);
  if (seg.slots - first == 2) StatesForward<2, kFirstVector>(d, seg, tile, first);
  if (seg.slots - first == 3) StatesForward<3, kFirstVector>(d, seg, tile, first);
}

template <bool kFirstVector>
void GradientBackwardAll(D d, const Segment& seg, Tile tile) {
  size_t first = 0;
  for (; first + 4 <= seg.slots; first += 4) GradientBackward<4, kFirstVector>(d, seg, tile, first);
  if (seg.slots - first == 1) GradientBackward<1, kFirstVector>(d, seg, tile, first);
  if (seg.slots - first == 2) GradientBackward<2, kFirstVector>(d, seg, tile, first);
  if (seg.slots - first == 3) GradientBackward<3, kFirstVector>(d, seg, tile, first);
}

// The call's arguments and the vector of channels at hand.
struct Task {
  const WkvInputs& in;
  const WkvSave<const float>& saved;
  Mat<const float> dry;
  const WkvGradients& out;
  size_t t0, steps, col, valid;
};

template <bool kTail>
void BackwardFront(D d, const Task& task, const Segment& seg, Tile tile) {
  const WkvInputs& in = task.in;
  const size_t col = task.col;
  const size_t valid = task.valid;
  const V base = LoadPart<kTail>(d, in.decay_base.data() + col, valid);
  const V scale = LoadPart<kTail>(d, in.decay_scale.data() + col, valid);
  // Two loops for the reason given at ForwardFront.
  for (size_t i = tile.begin; i < tile.end; ++i) {
    const size_t t = task.t0 + i;
    const V z = hn::Add(base, LoadPart<kTail>(d, in.d.Row(t) + col, valid));
    const V r = LoadPart<kTail>(d, in.r.Row(t) + col, valid);
    hn::Store(wkv::Key(d, LoadPart<kTail>(d, in.k.Row(t) + col, valid)), d, seg.At(d, i, kK));
    hn::Store(wkv::ExpMinus(d, z), d, seg.At(d, i, kA));
    hn::Store(wkv::ExpMinus(d, r), d, seg.At(d, i, kP));
  }
  for (size_t i = tile.begin; i < tile.end; ++i) {
    const size_t t = task.t0 + i;
    const V minus_z = hn::Load(d, seg.At(d, i, kA));
    const V minus_r = hn::Load(d, seg.At(d, i, kP));
    V sigmoid_z = minus_z;
    V sigmoid_r = minus_r;
    wkv::SigmoidPair(d, minus_z, minus_r, sigmoid_z, sigmoid_r);
    const V v = LoadPart<kTail>(d, in.v.Row(t) + col, valid);
    const V y = hn::Add(v, LoadPart<kTail>(d, task.saved.offset.Row(t) + col, valid));
    const V g = hn::Mul(LoadPart<kTail>(d, task.dry.Row(t) + col, valid), sigmoid_r);
    const V p = hn::Mul(g, LoadPart<kTail>(d, task.saved.inv_den.Row(t) + col, valid));
    hn::Store(hn::Mul(hn::Load(d, seg.At(d, i, kK)), v), d, seg.At(d, i, kKv));
    hn::Store(hn::Mul(sigmoid_z, scale), d, seg.At(d, i, kA));
    hn::Store(hn::Mul(sigmoid_z, minus_z), d, seg.At(d, i, kMinusZ));
    hn::Store(p, d, seg.At(d, i, kP));
    hn::Store(hn::Neg(hn::Mul(p, y)), d, seg.At(d, i, kQ));
    const V dr = hn::Mul(hn::Mul(g, y), hn::Mul(sigmoid_r, minus_r));
    StorePart<kTail>(dr, d, task.out.r.Row(t) + col, valid);
  }
}

// Takes E after the tile's last step; seeds hold it at the tile's beginning.
template <bool kTail>
void BackwardBack(D d, const Task& task, const Segment& seg, Tile tile, V e) {
  const size_t N = hn::Lanes(d);
  const size_t col = task.col;
  const size_t valid = task.valid;
  const V limit = hn::Set(d, wkv::kKeyLimit);
  const V epsilon = hn::Set(d, wkv::kEpsilon);
  const V raw_u = LoadPart<kTail>(d, task.in.time_first.data() + col, valid);
  const V u = wkv::Key(d, raw_u);
  V sum_z = hn::Zero(d);
  V sum_u = hn::Zero(d);
  for (size_t i = tile.end; i-- > tile.begin;) {
    const size_t t = task.t0 + i;
    const V k = hn::Load(d, seg.At(d, i, kK));
    const V p = hn::Load(d, seg.At(d, i, kP));
    const V rn = hn::Load(d, seg.stage.rn + i % kTile * N);
    const V rd = hn::Load(d, seg.stage.rd + i % kTile * N);
    const V w = hn::MulAdd(hn::Load(d, seg.At(d, i, kKv)), rn, hn::Mul(k, rd));
    const V offset = LoadPart<kTail>(d, task.saved.offset.Row(t) + col, valid);
    const V present = hn::Neg(hn::Mul(hn::Mul(k, p), offset));  // k (p v + q)
    const V dk = hn::MulAdd(u, present, w);
    const V dz = hn::Mul(hn::Sub(e, w), hn::Load(d, seg.At(d, i, kMinusZ)));
    const V raw_k = hn::Abs(LoadPart<kTail>(d, task.in.k.Row(t) + col, valid));
    StorePart<kTail>(hn::IfThenZeroElse(hn::Gt(raw_k, limit), dk), d, task.out.k.Row(t) + col,
                     valid);
    StorePart<kTail>(hn::Mul(k, hn::MulAdd(u, p, rn)), d, task.out.v.Row(t) + col, valid);
    StorePart<kTail>(dz, d, task.out.d.Row(t) + col, valid);
    sum_z = hn::Add(sum_z, dz);
    sum_u = hn::Add(sum_u, present);
    e = hn::Sub(e, hn::MulAdd(epsilon, hn::Load(d, seg.At(d, i, kQ)), dk));
    if (i % kReseed == 0 && i != 0) e = hn::Load(d, seg.stage.seeds + i / kReseed * N);
  }
  float* const decay = task.out.decay_base.data() + col;
  StorePart<kTail>(hn::Add(LoadPart<kTail>(d, decay, valid), sum_z), d, decay, valid);
  float* const first = task.out.time_first.data() + col;
  const V du = hn::IfThenZeroElse(hn::Gt(hn::Abs(raw_u), limit), hn::Mul(u, sum_u));
  StorePart<kTail>(hn::Add(LoadPart<kTail>(d, first, valid), du), d, first, valid);
}

// sum_s grad state over the 2 * slots rows of a state.
V DotState(D d, const float* grad, Mat<const float> state, size_t rows, size_t col, size_t valid) {
  V sum = hn::Zero(d);
  for (size_t row = 0; row < rows; ++row) {
    const V g = hn::Load(d, grad + row * hn::Lanes(d));
    sum = hn::MulAdd(g, hn::LoadN(d, state.Row(row) + col, valid), sum);
  }
  return sum;
}

// following: the state after the segment; null data at a window's end, where the gradient is zero.
template <bool kTail, bool kFirstVector>
void BackwardVector(D d, const Task& task, const Segment& seg, Mat<const float> following) {
  const size_t rows = 2 * seg.slots;
  wkv::LoadRows(d, task.saved.states.Rows(task.t0 / kWkvSegment * rows, rows), rows, task.col,
                task.valid, seg.stage.states);
  V e = hn::Zero(d);
  if (following.data != nullptr) e = DotState(d, seg.grad, following, rows, task.col, task.valid);
  const size_t tiles = (seg.steps + kTile - 1) / kTile;
  for (size_t i = 0; i < tiles; ++i) {
    const Tile tile{i * kTile, std::min(seg.steps, (i + 1) * kTile)};
    BackwardFront<kTail>(d, task, seg, tile);
    StatesForwardAll<kFirstVector>(d, seg, tile);
  }
  for (size_t i = tiles; i-- > 0;) {
    const Tile tile{i * kTile, std::min(seg.steps, (i + 1) * kTile)};
    GradientBackwardAll<kFirstVector>(d, seg, tile);
    BackwardBack<kTail>(d, task, seg, tile, e);
    e = hn::Load(d, seg.stage.seeds + tile.begin / kReseed * hn::Lanes(d));
  }
}

// The gate gradients of a segment from AddGates' vectors, `block` of channels: the first
// overwrites.
void FinishGates(D d, float* gates, size_t steps, bool first_block, Mat<float> out) {
  const hn::FixedTag<float, 4> d4;
  const size_t N = hn::Lanes(d);
  for (size_t first = 0; first < out.cols; first += 4) {
    const size_t slots = std::min<size_t>(out.cols - first, 4);
    const float* const group = GateGroup(d, gates, first);
    for (size_t t = 0; t < steps; ++t) {
      auto sum = hn::LoadU(d4, group + t * N);
      for (size_t lane = 4; lane < N; lane += 4)
        sum = hn::Add(sum, hn::LoadU(d4, group + t * N + lane));
      float s[4];
      hn::StoreU(sum, d4, s);
      if (slots <= 2) s[0] += s[2], s[1] += s[3];
      if (slots == 1) s[0] += s[1];
      float* const to = out.Row(t) + first;
      for (size_t i = 0; i < slots; ++i) to[i] = first_block ? s[i] : to[i] + s[i];
    }
  }
}

void ZeroRows(Mat<float> m, size_t first) {
  for (size_t t = first; t < m.rows; ++t) std::fill_n(m.Row(t), m.cols, 0.0f);
}

void BackwardBlock(D d, const WkvInputs& in, size_t length, const WkvSave<const float>& saved,
                   const WkvEnd& after, Mat<const float> dry, const WkvGradients& out,
                   const Stage& stage, size_t begin) {
  const size_t N = hn::Lanes(d);
  const size_t slots = in.write.cols;
  const size_t rows = 2 * slots;
  const size_t end = std::min(in.r.cols, begin + kWkvBlock);
  for (size_t col = begin; col < end; col += N) {
    wkv::LoadRows(d, after.grad, rows, col, std::min(N, end - col),
                  stage.grad + (col - begin) * rows);
  }
  Mat<const float> following = after.state;
  for (size_t segment = WkvCheckpoints(length); segment-- > 0;) {
    const size_t t0 = segment * kWkvSegment;
    const size_t steps = std::min(kWkvSegment, length - t0);
    for (size_t col = begin; col < end; col += N) {
      const Task task{in, saved, dry, out, t0, steps, col, std::min(N, end - col)};
      const Segment seg{.steps = steps,
                        .slots = slots,
                        .write = {in.write.Row(t0), in.write.stride},
                        .read = {in.read.Row(t0), in.read.stride},
                        .stage = stage,
                        .grad = stage.grad + (col - begin) * rows};
      const bool tail = task.valid < N;
      if (col == begin) {
        tail ? BackwardVector<true, true>(d, task, seg, following)
             : BackwardVector<false, true>(d, task, seg, following);
      } else {
        tail ? BackwardVector<true, false>(d, task, seg, following)
             : BackwardVector<false, false>(d, task, seg, following);
      }
    }
    FinishGates(d, stage.write, steps, begin == 0, out.write.Rows(t0, steps));
    FinishGates(d, stage.read, steps, begin == 0, out.read.Rows(t0, steps));
    following = saved.states.Rows(segment * rows, rows);
  }
  if (out.state.data == nullptr) return;
  for (size_t col = begin; col < end; col += N) {
    wkv::StoreRows(d, stage.grad + (col - begin) * rows, rows, col, std::min(N, end - col),
                   out.state);
  }
}

size_t BackwardScratch(size_t slots) {
  Stage stage;
  return Place(nullptr, slots, hn::Lanes(D()), stage) + kAlignFloats;
}

void Backward(const WkvInputs& in, size_t length, const WkvSave<const float>& saved,
              const WkvEnd& end, Mat<const float> dry, const WkvGradients& out, float* scratch) {
  const D d;
  const size_t past = reinterpret_cast<uintptr_t>(scratch) / sizeof(float) % kAlignFloats;
  Stage stage;
  Place(scratch + (kAlignFloats - past) % kAlignFloats, in.write.cols, hn::Lanes(d), stage);
  for (size_t begin = 0; begin < in.r.cols; begin += kWkvBlock) {
    BackwardBlock(d, in, length, saved, end, dry, out, stage, begin);
  }
  for (const Mat<float>& m : {out.r, out.k, out.v, out.d, out.write, out.read}) ZeroRows(m, length);
}

}  // namespace
}  // namespace lanewise::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {
HWY_EXPORT(BackwardScratch);
HWY_EXPORT(Backward);
}  // namespace

size_t WkvBackwardScratch(size_t slots) { return HWY_DYNAMIC_DISPATCH(BackwardScratch)(slots); }

void WkvBackward(const WkvInputs& in, size_t length, const WkvSave<const float>& saved,
                 const WkvEnd& end, Mat<const float> dry, const WkvGradients& out,
                 std::span<float> scratch) {
  HWY_DYNAMIC_DISPATCH(Backward)(in, length, saved, end, dry, out, scratch.data());
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
