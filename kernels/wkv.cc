#include "kernels/wkv.h"

#include <algorithm>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/wkv.cc"
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

// One vector of channels of one segment.
struct Segment {
  size_t steps;
  size_t slots;
  const float *k, *v, *a, *sigmoid_r;  // [steps][lane]
  float *read_num, *read_den;          // [steps][lane], sums over the groups so far
  Gate write, read;
  float* state;                    // [2 * slots][lane]
  Mat<float> ry, offset, inv_den;  // results: row t at data + t * stride
};

// What y reads of one slot, then its update.
HWY_INLINE void ReadAndUpdate(V a, V write, V read, V k, V kv, V& num, V& den, V& y_num, V& y_den) {
  y_num = hn::MulAdd(read, num, y_num);
  y_den = hn::MulAdd(read, den, y_den);
  wkv::Update(a, write, kv, k, num, den);
}

// Slots [first, first + kSlots) through all steps of the segment. The group that is kFirst starts
// the sums of what is read, the one that is kLast adds the present token to them: y = v + (sum read
// num - v (sum read den + 1e-6)) / Dn.
template <size_t kSlots, bool kFirst, bool kLast>
void ScanGroup(D d, const Segment& seg, size_t first, V u) {
  const size_t N = hn::Lanes(d);
  const V one = hn::Set(d, 1.0f);
  const V epsilon = hn::Set(d, wkv::kEpsilon);
  float* const nums = seg.state + first * N;
  float* const dens = seg.state + (seg.slots + first) * N;
  V n0 = hn::Load(d, nums), d0 = hn::Load(d, dens);
  V n1 = n0, n2 = n0, n3 = n0, n4 = n0, n5 = n0, n6 = n0, n7 = n0;
  V d1 = d0, d2 = d0, d3 = d0, d4 = d0, d5 = d0, d6 = d0, d7 = d0;
  if constexpr (kSlots > 1) n1 = hn::Load(d, nums + N), d1 = hn::Load(d, dens + N);
  if constexpr (kSlots > 2) n2 = hn::Load(d, nums + 2 * N), d2 = hn::Load(d, dens + 2 * N);
  if constexpr (kSlots > 3) n3 = hn::Load(d, nums + 3 * N), d3 = hn::Load(d, dens + 3 * N);
  if constexpr (kSlots > 4) {
    n4 = hn::Load(d, nums + 4 * N), d4 = hn::Load(d, dens + 4 * N);
    n5 = hn::Load(d, nums + 5 * N), d5 = hn::Load(d, dens + 5 * N);
    n6 = hn::Load(d, nums + 6 * N), d6 = hn::Load(d, dens + 6 * N);
    n7 = hn::Load(d, nums + 7 * N), d7 = hn::Load(d, dens + 7 * N);
  }
  const auto step = [](const float* w, const float* r, size_t s, V a, V k, V kv, V& num, V& den,
                       V& yn, V& yd) HWY_ATTR {
    ReadAndUpdate(a, hn::Set(D(), w[s]), hn::Set(D(), r[s]), k, kv, num, den, yn, yd);
  };
  for (size_t t = 0; t < seg.steps; ++t) {
    const V k = hn::Load(d, seg.k + t * N);
    const V v = hn::Load(d, seg.v + t * N);
    const V a = hn::Load(d, seg.a + t * N);
    const V kv = hn::Mul(k, v);
    V yn = kFirst ? hn::Zero(d) : hn::Load(d, seg.read_num + t * N);
    V yd = kFirst ? epsilon : hn::Load(d, seg.read_den + t * N);
    const float* const w = seg.write.data + t * seg.write.stride + first;
    const float* const r = seg.read.data + t * seg.read.stride + first;
    step(w, r, 0, a, k, kv, n0, d0, yn, yd);
    if constexpr (kSlots > 1) step(w, r, 1, a, k, kv, n1, d1, yn, yd);
    if constexpr (kSlots > 2) step(w, r, 2, a, k, kv, n2, d2, yn, yd);
    if constexpr (kSlots > 3) step(w, r, 3, a, k, kv, n3, d3, yn, yd);
    if constexpr (kSlots > 4) {
      step(w, r, 4, a, k, kv, n4, d4, yn, yd);
      step(w, r, 5, a, k, kv, n5, d5, yn, yd);
      step(w, r, 6, a, k, kv, n6, d6, yn, yd);
      step(w, r, 7, a, k, kv, n7, d7, yn, yd);
    }
    if constexpr (kLast) {
      const V inv = hn::Div(one, hn::MulAdd(u, k, yd));
      const V offset = hn::Mul(hn::NegMulAdd(v, yd, yn), inv);
      const V ry = hn::Mul(hn::Load(d, seg.sigmoid_r + t * N), hn::Add(v, offset));
      hn::StoreU(ry, d, seg.ry.Row(t));
      hn::StoreU(offset, d, seg.offset.Row(t));
      hn::StoreU(inv, d, seg.inv_den.Row(t));
    } else {
      hn::Store(yn, d, seg.read_num + t * N);
      hn::Store(yd, d, seg.read_den + t * N);
    }
  }
  hn::Store(n0, d, nums), hn::Store(d0, d, dens);
  if constexpr (kSlots > 1) hn::Store(n1, d, nums + N), hn::Store(d1, d, dens + N);
  if constexpr (kSlots > 2) hn::Store(n2, d, nums + 2 * N), hn::Store(d2, d, dens + 2 * N);
  if constexpr (kSlots > 3) hn::Store(n3, d, nums + 3 * N), hn::Store(d3, d, dens + 3 * N);
  if constexpr (kSlots > 4) {
    hn::Store(n4, d, nums + 4 * N), hn::Store(d4, d, dens + 4 * N);
    hn::Store(n5, d, nums + 5 * N), hn::Store(d5, d, dens + 5 * N);
    hn::Store(n6, d, nums + 6 * N), hn::Store(d6, d, dens + 6 * N);
    hn::Store(n7, d, nums + 7 * N), hn::Store(d7, d, dens + 7 * N);
  }
}

template <bool kFirst, bool kLast>
void ScanGroupOf(size_t size, D d, const Segment& seg, size_t first, V u) {
  switch (size) {
    case 1:
      return ScanGroup<1, kFirst, kLast>(d, seg, first, u);
    case 2:
      return ScanGroup<2, kFirst, kLast>(d, seg, first, u);
    case 3:
      return ScanGroup<3, kFirst, kLast>(d, seg, first, u);
    case 4:
      return ScanGroup<4, kFirst, kLast>(d, seg, first, u);
    default:
      return ScanGroup<8, kFirst, kLast>(d, seg, first, u);
  }
}

void Scan(D d, const Segment& seg, V u) {
  for (size_t first = 0; first < seg.slots;) {
    const size_t size = wkv::GroupSize(seg.slots - first);
    const bool last = first + size == seg.slots;
    if (first == 0) {
      last ? ScanGroupOf<true, true>(size, d, seg, first, u)
           : ScanGroupOf<true, false>(size, d, seg, first, u);
    } else {
      last ? ScanGroupOf<false, true>(size, d, seg, first, u)
           : ScanGroupOf<false, false>(size, d, seg, first, u);
    }
    first += size;
  }
}

struct Front {
  float *k, *v, *a, *sigmoid_r;  // [steps][lane]
};

// Two loops: three short independent chains of operations a step in the first, what waits for the
// division in the second. In one loop the waiting operations fill the CPU's window.
template <bool kTail>
void ForwardFront(D d, const WkvInputs& in, size_t t0, size_t steps, size_t col, size_t valid,
                  const Front& out) {
  const size_t N = hn::Lanes(d);
  const V base = LoadPart<kTail>(d, in.decay_base.data() + col, valid);
  const V scale = LoadPart<kTail>(d, in.decay_scale.data() + col, valid);
  for (size_t t = 0; t < steps; ++t) {
    const V z = hn::Add(base, LoadPart<kTail>(d, in.d.Row(t0 + t) + col, valid));
    const V r = LoadPart<kTail>(d, in.r.Row(t0 + t) + col, valid);
    hn::Store(wkv::Key(d, LoadPart<kTail>(d, in.k.Row(t0 + t) + col, valid)), d, out.k + t * N);
    hn::Store(wkv::ExpMinus(d, z), d, out.a + t * N);
    hn::Store(wkv::ExpMinus(d, r), d, out.sigmoid_r + t * N);
  }
  for (size_t t = 0; t < steps; ++t) {
    V decay = hn::Load(d, out.a + t * N);
    V sigmoid_r = hn::Load(d, out.sigmoid_r + t * N);
    wkv::SigmoidPair(d, decay, sigmoid_r, decay, sigmoid_r);
    hn::Store(hn::Mul(decay, scale), d, out.a + t * N);
    hn::Store(sigmoid_r, d, out.sigmoid_r + t * N);
    hn::Store(LoadPart<kTail>(d, in.v.Row(t0 + t) + col, valid), d, out.v + t * N);
  }
}

void ZeroRows(Mat<float> m, size_t first) {
  if (m.data == nullptr) return;
  for (size_t t = first; t < m.rows; ++t) std::fill_n(m.Row(t), m.cols, 0.0f);
}

// Steps that are staged at a time: few, so that the stage takes little of the first-level cache.
constexpr size_t kStageSteps = 16;
constexpr size_t kStage = kStageSteps * wkv::kMaxLanes;

// One vector of channels through one segment that starts at step t0. Results of partial vectors,
// and those that nobody wants, go to the stack.
void ForwardVector(D d, const WkvInputs& in, size_t t0, size_t steps, size_t col, size_t valid,
                   float* state, Mat<float> ry, const WkvSave<float>& save) {
  HWY_ALIGN float k[kStage], v[kStage], a[kStage], sigmoid_r[kStage];
  HWY_ALIGN float read_num[kStage], read_den[kStage], last[kStage];
  const size_t N = hn::Lanes(d);
  const bool tail = valid < N;
  const Front front{k, v, a, sigmoid_r};
  tail ? ForwardFront<true>(d, in, t0, steps, col, valid, front)
       : ForwardFront<false>(d, in, t0, steps, col, valid, front);
  const auto place = [&](Mat<float> result, float* staged) {
    const bool direct = !tail && result.data != nullptr;
    return direct ? result.Rows(t0, steps).Cols(col, valid) : Mat<float>{staged, steps, N, N};
  };
  const Segment seg{.steps = steps,
                    .slots = in.write.cols,
                    .k = k,
                    .v = v,
                    .a = a,
                    .sigmoid_r = sigmoid_r,
                    .read_num = read_num,
                    .read_den = read_den,
                    .write = {in.write.Row(t0), in.write.stride},
                    .read = {in.read.Row(t0), in.read.stride},
                    .state = state,
                    .ry = place(ry, read_num),
                    .offset = place(save.offset, read_den),
                    .inv_den = place(save.inv_den, last)};
  Scan(d, seg, wkv::Key(d, hn::LoadN(d, in.time_first.data() + col, valid)));
  if (!tail) return;
  wkv::StoreRows(d, read_num, steps, col, valid, ry.Rows(t0, steps));
  if (save.offset.data == nullptr) return;
  wkv::StoreRows(d, read_den, steps, col, valid, save.offset.Rows(t0, steps));
  wkv::StoreRows(d, last, steps, col, valid, save.inv_den.Rows(t0, steps));
}

void Forward(const WkvInputs& in, size_t length, Mat<const float> state_in, Mat<float> ry,
             Mat<float> state_out, const WkvSave<float>& save) {
  HWY_ALIGN float block_state[2 * kWkvMaxSlots * kWkvBlock];
  const D d;
  const size_t N = hn::Lanes(d);
  const size_t E = in.r.cols;
  const size_t rows = 2 * in.write.cols;
  for (size_t begin = 0; begin < E; begin += kWkvBlock) {
    const size_t end = std::min(E, begin + kWkvBlock);
    for (size_t col = begin; col < end; col += N) {
      wkv::LoadRows(d, state_in, rows, col, std::min(N, end - col),
                    block_state + (col - begin) * rows);
    }
    for (size_t t0 = 0; t0 < length; t0 += kWkvSegment) {
      const size_t steps = std::min(kWkvSegment, length - t0);
      for (size_t col = begin; col < end; col += N) {
        const size_t valid = std::min(N, end - col);
        float* const state = block_state + (col - begin) * rows;
        if (save.states.data != nullptr) {
          const Mat<float> saved = save.states.Rows(t0 / kWkvSegment * rows, rows);
          wkv::StoreRows(d, state, rows, col, valid, saved);
        }
        for (size_t t = t0; t < t0 + steps; t += kStageSteps) {
          const size_t count = std::min(kStageSteps, t0 + steps - t);
          ForwardVector(d, in, t, count, col, valid, state, ry, save);
        }
      }
    }
    if (state_out.data != nullptr) {
      for (size_t col = begin; col < end; col += N) {
        wkv::StoreRows(d, block_state + (col - begin) * rows, rows, col, std::min(N, end - col),
                       state_out);
      }
    }
  }
  ZeroRows(ry, length);
  ZeroRows(save.offset, length);
  ZeroRows(save.inv_den, length);
}

}  // namespace
}  // namespace lanewise::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {
HWY_EXPORT(Forward);
}  // namespace

void WkvForward(const WkvInputs& in, size_t length, Mat<const float> state_in, Mat<float> ry,
                Mat<float> state_out, const WkvSave<float>& save) {
  HWY_DYNAMIC_DISPATCH(Forward)(in, length, state_in, ry, state_out, save);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
