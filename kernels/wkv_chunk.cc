// The chunk-parallel form of the WKV scan: what a chunk does to any state that enters it.
#include <algorithm>
#include <cstddef>

#include "kernels/wkv.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/wkv_chunk.cc"
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
using wkv::V;

// Few steps, so that the largest vectors fit on the stack with room to spare.
constexpr size_t kSteps = 32;
constexpr size_t kStage = kSteps * wkv::kMaxLanes;

// What a state's num and den receive in each step, times the gate, and its factor a: [step][lane].
struct Stage {
  HWY_ALIGN float num[kStage];
  HWY_ALIGN float den[kStage];
  HWY_ALIGN float a[kStage];
};

// state = a state + gate x for slots [first, first + kSlots), over the steps in their order in time
// or, kReverse, against it.
template <size_t kSlots, bool kReverse>
void UpdateGroup(D d, const Stage& stage, size_t steps, Gate gate, size_t slots, size_t first,
                 float* state) {
  const size_t N = hn::Lanes(d);
  float* const nums = state + first * N;
  float* const dens = state + (slots + first) * N;
  V n0 = hn::Load(d, nums), d0 = hn::Load(d, dens);
  V n1 = n0, n2 = n0, n3 = n0, d1 = d0, d2 = d0, d3 = d0;
  if constexpr (kSlots > 1) n1 = hn::Load(d, nums + N), d1 = hn::Load(d, dens + N);
  if constexpr (kSlots > 2) n2 = hn::Load(d, nums + 2 * N), d2 = hn::Load(d, dens + 2 * N);
  if constexpr (kSlots > 3) n3 = hn::Load(d, nums + 3 * N), d3 = hn::Load(d, dens + 3 * N);
  for (size_t i = 0; i < steps; ++i) {
    const size_t t = kReverse ? steps - 1 - i : i;
    const V xn = hn::Load(d, stage.num + t * N);
    const V xd = hn::Load(d, stage.den + t * N);
    const V a = hn::Load(d, stage.a + t * N);
    const float* const g = gate.data + t * gate.stride + first;
    wkv::Update(a, hn::Set(d, g[0]), xn, xd, n0, d0);
    if constexpr (kSlots > 1) wkv::Update(a, hn::Set(d, g[1]), xn, xd, n1, d1);
    if constexpr (kSlots > 2) wkv::Update(a, hn::Set(d, g[2]), xn, xd, n2, d2);
    if constexpr (kSlots > 3) wkv::Update(a, hn::Set(d, g[3]), xn, xd, n3, d3);
  }
  hn::Store(n0, d, nums), hn::Store(d0, d, dens);
  if constexpr (kSlots > 1) hn::Store(n1, d, nums + N), hn::Store(d1, d, dens + N);
  if constexpr (kSlots > 2) hn::Store(n2, d, nums + 2 * N), hn::Store(d2, d, dens + 2 * N);
  if constexpr (kSlots > 3) hn::Store(n3, d, nums + 3 * N), hn::Store(d3, d, dens + 3 * N);
}

template <bool kReverse>
void UpdateAll(D d, const Stage& stage, size_t steps, Gate gate, size_t slots, float* state) {
  size_t first = 0;
  for (; first + 4 <= slots; first += 4) {
    UpdateGroup<4, kReverse>(d, stage, steps, gate, slots, first, state);
  }
  const size_t rest = slots - first;
  if (rest == 1) UpdateGroup<1, kReverse>(d, stage, steps, gate, slots, first, state);
  if (rest == 2) UpdateGroup<2, kReverse>(d, stage, steps, gate, slots, first, state);
  if (rest == 3) UpdateGroup<3, kReverse>(d, stage, steps, gate, slots, first, state);
}

// The stage of the states themselves. Returns decay times the product of a.
template <bool kTail>
V StateFront(D d, const WkvInputs& in, size_t t0, size_t steps, size_t col, size_t valid, V decay,
             Stage& stage) {
  const size_t N = hn::Lanes(d);
  const V base = LoadPart<kTail>(d, in.decay_base.data() + col, valid);
  const V scale = LoadPart<kTail>(d, in.decay_scale.data() + col, valid);
  for (size_t t = 0; t < steps; ++t) {
    const V k = wkv::Key(d, LoadPart<kTail>(d, in.k.Row(t0 + t) + col, valid));
    const V v = LoadPart<kTail>(d, in.v.Row(t0 + t) + col, valid);
    const V z = hn::Add(base, LoadPart<kTail>(d, in.d.Row(t0 + t) + col, valid));
    const V a = hn::Mul(Sigmoid(d, z), scale);
    decay = hn::Mul(decay, a);
    hn::Store(hn::Mul(k, v), d, stage.num + t * N);
    hn::Store(k, d, stage.den + t * N);
    hn::Store(a, d, stage.a + t * N);
  }
  return decay;
}

// The stage of their gradient. Returns decay times the product of a.
template <bool kTail>
V GradientFront(D d, const WkvInputs& in, const WkvSave<const float>& saved,
                Mat<const float> dry_in, size_t t0, size_t steps, size_t col, size_t valid, V decay,
                Stage& stage) {
  const size_t N = hn::Lanes(d);
  const V base = LoadPart<kTail>(d, in.decay_base.data() + col, valid);
  const V scale = LoadPart<kTail>(d, in.decay_scale.data() + col, valid);
  for (size_t i = 0; i < steps; ++i) {
    const size_t t = t0 + i;
    const V z = hn::Add(base, LoadPart<kTail>(d, in.d.Row(t) + col, valid));
    const V r = LoadPart<kTail>(d, in.r.Row(t) + col, valid);
    V sigmoid_z = wkv::ExpMinus(d, z);
    V sigmoid_r = wkv::ExpMinus(d, r);
    wkv::SigmoidPair(d, sigmoid_z, sigmoid_r, sigmoid_z, sigmoid_r);
    const V a = hn::Mul(sigmoid_z, scale);
    decay = hn::Mul(decay, a);
    const V dry = LoadPart<kTail>(d, dry_in.Row(t) + col, valid);
    const V inv = LoadPart<kTail>(d, saved.inv_den.Row(t) + col, valid);
    const V v = LoadPart<kTail>(d, in.v.Row(t) + col, valid);
    const V y = hn::Add(v, LoadPart<kTail>(d, saved.offset.Row(t) + col, valid));
    const V p = hn::Mul(hn::Mul(dry, sigmoid_r), inv);
    hn::Store(p, d, stage.num + i * N);
    hn::Store(hn::Neg(hn::Mul(p, y)), d, stage.den + i * N);
    hn::Store(a, d, stage.a + i * N);
  }
  return decay;
}

void Chunk(const WkvInputs& in, size_t length, float* decay_out, Mat<float> local) {
  HWY_ALIGN float state[2 * kWkvMaxSlots * wkv::kMaxLanes];
  Stage stage;
  const D d;
  const size_t N = hn::Lanes(d);
  const size_t slots = in.write.cols;
  for (size_t col = 0; col < in.r.cols; col += N) {
    const size_t valid = std::min(N, in.r.cols - col);
    V decay = hn::Set(d, 1.0f);
    std::fill_n(state, 2 * slots * N, 0.0f);
    for (size_t t0 = 0; t0 < length; t0 += kSteps) {
      const size_t steps = std::min(kSteps, length - t0);
      decay = valid < N ? StateFront<true>(d, in, t0, steps, col, valid, decay, stage)
                        : StateFront<false>(d, in, t0, steps, col, valid, decay, stage);
      UpdateAll<false>(d, stage, steps, {in.write.Row(t0), in.write.stride}, slots, state);
    }
    hn::StoreN(decay, d, decay_out + col, valid);
    wkv::StoreRows(d, state, 2 * slots, col, valid, local);
  }
}

void ChunkBackward(const WkvInputs& in, size_t length, const WkvSave<const float>& saved,
                   Mat<const float> dry, float* decay_out, Mat<float> local) {
  HWY_ALIGN float state[2 * kWkvMaxSlots * wkv::kMaxLanes];
  Stage stage;
  const D d;
  const size_t N = hn::Lanes(d);
  const size_t slots = in.write.cols;
  for (size_t col = 0; col < in.r.cols; col += N) {
    const size_t valid = std::min(N, in.r.cols - col);
    V decay = hn::Set(d, 1.0f);
    std::fill_n(state, 2 * slots * N, 0.0f);
    for (size_t part = (length + kSteps - 1) / kSteps; part-- > 0;) {
      const size_t t0 = part * kSteps;
      const size_t steps = std::min(kSteps, length - t0);
      decay = valid < N
                  ? GradientFront<true>(d, in, saved, dry, t0, steps, col, valid, decay, stage)
                  : GradientFront<false>(d, in, saved, dry, t0, steps, col, valid, decay, stage);
      UpdateAll<true>(d, stage, steps, {in.read.Row(t0), in.read.stride}, slots, state);
    }
    hn::StoreN(decay, d, decay_out + col, valid);
    wkv::StoreRows(d, state, 2 * slots, col, valid, local);
  }
}

void Carry(const float* decay, Mat<const float> local, Mat<const float> state, Mat<float> out) {
  for (size_t row = 0; row < local.rows; ++row) {
    for (size_t i = 0; i < local.cols; ++i) {
      const float before = state.data == nullptr ? 0.0f : state.Row(row)[i];
      out.Row(row)[i] = decay[i] * before + local.Row(row)[i];
    }
  }
}

}  // namespace
}  // namespace lanewise::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {
HWY_EXPORT(Chunk);
HWY_EXPORT(ChunkBackward);
HWY_EXPORT(Carry);
}  // namespace

void WkvChunk(const WkvInputs& in, size_t length, std::span<float> decay, Mat<float> local) {
  HWY_DYNAMIC_DISPATCH(Chunk)(in, length, decay.data(), local);
}

void WkvChunkBackward(const WkvInputs& in, size_t length, const WkvSave<const float>& saved,
                      Mat<const float> dry, std::span<float> decay, Mat<float> local) {
  HWY_DYNAMIC_DISPATCH(ChunkBackward)(in, length, saved, dry, decay.data(), local);
}

void WkvCarry(std::span<const float> decay, Mat<const float> local, Mat<const float> state,
              Mat<float> state_out) {
  HWY_DYNAMIC_DISPATCH(Carry)(decay.data(), local, state, state_out);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
