#include "kernels/token_shift.h"

#include <algorithm>
#include <cstddef>
#include <span>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/token_shift.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Columns at a time: what is derived from their parameters fits on the stack.
constexpr size_t kCols = 256;
using D = hn::CappedTag<float, kCols>;
using V = hn::Vec<D>;

// sh = c1 n[-1] + c2 n[-2] + c4 n[-4]; x_z = sh + m_z (n - sh); rest_z = 1 - m_z.
struct Coefficients {
  HWY_ALIGN float c1[kCols], c2[kCols], c4[kCols];
  HWY_ALIGN float mr[kCols], mk[kCols], mv[kCols];
  HWY_ALIGN float rest_r[kCols], rest_k[kCols], rest_v[kCols];
};

V SigmoidAt(D d, std::span<const float> raw, size_t col, size_t valid) {
  return Sigmoid(d, hn::LoadN(d, raw.data() + col, valid));
}

V MinusSigmoidAt(D d, std::span<const float> raw, size_t col, size_t valid) {
  return Sigmoid(d, hn::Neg(hn::LoadN(d, raw.data() + col, valid)));
}

V ShiftSum(D d, V s1, V s2, V s4) {
  return hn::Add(hn::Add(hn::Add(s1, s2), s4), hn::Set(d, 1e-6f));
}

void Prepare(D d, const TokenShiftParams<const float>& p, size_t begin, size_t count, bool rests,
             Coefficients& out) {
  const size_t N = hn::Lanes(d);
  for (size_t i = 0; i < count; i += N) {
    const size_t col = begin + i;
    const size_t valid = std::min(N, count - i);
    const V s1 = SigmoidAt(d, p.w1, col, valid);
    const V s2 = SigmoidAt(d, p.w2, col, valid);
    const V s4 = SigmoidAt(d, p.w4, col, valid);
    const V inv = hn::Div(hn::Set(d, 1.0f), ShiftSum(d, s1, s2, s4));
    hn::Store(hn::Mul(s1, inv), d, out.c1 + i);
    hn::Store(hn::Mul(s2, inv), d, out.c2 + i);
    hn::Store(hn::Mul(s4, inv), d, out.c4 + i);
    hn::Store(SigmoidAt(d, p.mix_r, col, valid), d, out.mr + i);
    hn::Store(SigmoidAt(d, p.mix_k, col, valid), d, out.mk + i);
    hn::Store(SigmoidAt(d, p.mix_v, col, valid), d, out.mv + i);
    if (!rests) continue;
    hn::Store(MinusSigmoidAt(d, p.mix_r, col, valid), d, out.rest_r + i);
    hn::Store(MinusSigmoidAt(d, p.mix_k, col, valid), d, out.rest_k + i);
    hn::Store(MinusSigmoidAt(d, p.mix_v, col, valid), d, out.rest_v + i);
  }
}

// Lanes [0, valid) of a partial vector (kTail), or a whole one.
template <bool kTail>
HWY_INLINE V Load(D d, const float* from, size_t valid) {
  if constexpr (kTail) return hn::LoadN(d, from, valid);
  return hn::LoadU(d, from);
}

template <bool kTail>
HWY_INLINE void Store(V v, D d, float* to, size_t valid) {
  if constexpr (kTail) {
    hn::StoreN(v, d, to, valid);
  } else {
    hn::StoreU(v, d, to);
  }
}

template <bool kTail>
HWY_INLINE void Add(V v, D d, float* to, size_t valid) {
  Store<kTail>(hn::Add(Load<kTail>(d, to, valid), v), d, to, valid);
}

// A sequence with what came before it.
struct History {
  Mat<const float> n, carried;
  const float* zeros;  // kCols of them

  // Row t - back at column col.
  const float* At(size_t t, size_t back, size_t col) const {
    if (t >= back) return n.Row(t - back) + col;
    return carried.data == nullptr ? zeros : carried.Row(carried.rows + t - back) + col;
  }
};

HWY_INLINE V Shifted(D d, const Coefficients& c, size_t i, V n1, V n2, V n4) {
  const V sum = hn::MulAdd(hn::Load(d, c.c2 + i), n2, hn::Mul(hn::Load(d, c.c4 + i), n4));
  return hn::MulAdd(hn::Load(d, c.c1 + i), n1, sum);
}

// Pointers at the first column of a chunk.
struct ForwardRow {
  const float *n, *n1, *n2, *n4;
  float *xr, *xk, *xv;
};

HWY_INLINE void Mix(D d, const Coefficients& c, size_t i, V n, V n1, V n2, V n4, V& xr, V& xk,
                    V& xv) {
  const V sh = Shifted(d, c, i, n1, n2, n4);
  const V difference = hn::Sub(n, sh);
  xr = hn::MulAdd(hn::Load(d, c.mr + i), difference, sh);
  xk = hn::MulAdd(hn::Load(d, c.mk + i), difference, sh);
  xv = hn::MulAdd(hn::Load(d, c.mv + i), difference, sh);
}

template <bool kTail>
HWY_INLINE void StoreMixed(D d, const ForwardRow& row, size_t i, size_t valid, V xr, V xk, V xv) {
  Store<kTail>(xr, d, row.xr + i, valid);
  Store<kTail>(xk, d, row.xk + i, valid);
  Store<kTail>(xv, d, row.xv + i, valid);
}

template <bool kTail>
HWY_INLINE void ForwardOne(D d, const Coefficients& c, const ForwardRow& row, size_t i,
                           size_t valid) {
  V xr = hn::Zero(d), xk = xr, xv = xr;
  Mix(d, c, i, Load<kTail>(d, row.n + i, valid), Load<kTail>(d, row.n1 + i, valid),
      Load<kTail>(d, row.n2 + i, valid), Load<kTail>(d, row.n4 + i, valid), xr, xk, xv);
  StoreMixed<kTail>(d, row, i, valid, xr, xk, xv);
}

// Four rows, rows[0] the earliest. Each row of n is loaded once, and before anything is stored: a
// load whose address agrees in its low 12 bits with a store just issued has to wait, and matrices
// tend to lie so.
template <bool kTail>
HWY_INLINE void ForwardFour(D d, const Coefficients& c, const ForwardRow* rows, size_t i,
                            size_t valid) {
  const V a4 = Load<kTail>(d, rows[0].n4 + i, valid), a3 = Load<kTail>(d, rows[1].n4 + i, valid);
  const V a2 = Load<kTail>(d, rows[2].n4 + i, valid), a1 = Load<kTail>(d, rows[3].n4 + i, valid);
  const V n0 = Load<kTail>(d, rows[0].n + i, valid), n1 = Load<kTail>(d, rows[1].n + i, valid);
  const V n2 = Load<kTail>(d, rows[2].n + i, valid), n3 = Load<kTail>(d, rows[3].n + i, valid);
  V r0 = n0, k0 = n0, v0 = n0, r1 = n1, k1 = n1, v1 = n1;
  V r2 = n2, k2 = n2, v2 = n2, r3 = n3, k3 = n3, v3 = n3;
  Mix(d, c, i, n0, a1, a2, a4, r0, k0, v0);
  Mix(d, c, i, n1, n0, a1, a3, r1, k1, v1);
  Mix(d, c, i, n2, n1, n0, a2, r2, k2, v2);
  Mix(d, c, i, n3, n2, n1, a1, r3, k3, v3);
  StoreMixed<kTail>(d, rows[0], i, valid, r0, k0, v0);
  StoreMixed<kTail>(d, rows[1], i, valid, r1, k1, v1);
  StoreMixed<kTail>(d, rows[2], i, valid, r2, k2, v2);
  StoreMixed<kTail>(d, rows[3], i, valid, r3, k3, v3);
}

void Forward(Mat<const float> n, Mat<const float> carried,
             const TokenShiftParams<const float>& params, size_t t0, size_t t1, Mat<float> xr,
             Mat<float> xk, Mat<float> xv) {
  HWY_ALIGN float zeros[kCols] = {};
  Coefficients c;
  const D d;
  const size_t N = hn::Lanes(d);
  const History history{n, carried, zeros};
  for (size_t col = 0; col < n.cols; col += kCols) {
    const size_t count = std::min(kCols, n.cols - col);
    const size_t whole = count / N * N;
    Prepare(d, params, col, count, /*rests=*/false, c);
    const auto row = [&](size_t t) {
      return ForwardRow{n.Row(t) + col,        history.At(t, 1, col), history.At(t, 2, col),
                        history.At(t, 4, col), xr.Row(t) + col,       xk.Row(t) + col,
                        xv.Row(t) + col};
    };
    size_t t = t0;
    for (; t + 4 <= t1; t += 4) {
      const ForwardRow rows[4] = {row(t), row(t + 1), row(t + 2), row(t + 3)};
      for (size_t i = 0; i < whole; i += N) ForwardFour<false>(d, c, rows, i, N);
      if (whole < count) ForwardFour<true>(d, c, rows, whole, count - whole);
    }
    for (; t < t1; ++t) {
      const ForwardRow one = row(t);
      for (size_t i = 0; i < whole; i += N) ForwardOne<false>(d, c, one, i, N);
      if (whole < count) ForwardOne<true>(d, c, one, whole, count - whole);
    }
  }
}

// Gradient of sh: the part of the outputs that is not n itself.
template <bool kTail>
HWY_INLINE V ShiftGradient(D d, const Coefficients& c, const float* dxr, const float* dxk,
                           const float* dxv, size_t i, size_t valid) {
  V sum = hn::Mul(hn::Load(d, c.rest_r + i), Load<kTail>(d, dxr + i, valid));
  sum = hn::MulAdd(hn::Load(d, c.rest_k + i), Load<kTail>(d, dxk + i, valid), sum);
  return hn::MulAdd(hn::Load(d, c.rest_v + i), Load<kTail>(d, dxv + i, valid), sum);
}

struct BackwardRow {
  const float *n, *n1, *n2, *n4;
  const float *dxr, *dxk, *dxv, *residual;
  float* dn;
};

// Gradients of sh in the four steps after the present one, and the sums of the six parameters.
struct BackwardState {
  HWY_ALIGN float next[4][kCols];
  HWY_ALIGN float sums[kTokenShiftSums][kCols];
};

// One row. s1, s2, s4: the gradients of sh one, two and four steps later. Returns that of this row
// and adds to the sums.
template <bool kTail>
HWY_INLINE V BackwardVector(D d, const Coefficients& c, const BackwardRow& row, size_t i,
                            size_t valid, V s1, V s2, V s4, V& wr, V& wk, V& wv, V& w1, V& w2,
                            V& w4) {
  const V dxr = Load<kTail>(d, row.dxr + i, valid);
  const V dxk = Load<kTail>(d, row.dxk + i, valid);
  const V dxv = Load<kTail>(d, row.dxv + i, valid);
  const V s0 = ShiftGradient<kTail>(d, c, row.dxr, row.dxk, row.dxv, i, valid);
  V dn = Load<kTail>(d, row.residual + i, valid);
  dn = hn::MulAdd(hn::Load(d, c.mr + i), dxr, dn);
  dn = hn::MulAdd(hn::Load(d, c.mk + i), dxk, dn);
  dn = hn::MulAdd(hn::Load(d, c.mv + i), dxv, dn);
  dn = hn::MulAdd(hn::Load(d, c.c1 + i), s1, dn);
  dn = hn::MulAdd(hn::Load(d, c.c2 + i), s2, dn);
  dn = hn::MulAdd(hn::Load(d, c.c4 + i), s4, dn);
  Store<kTail>(dn, d, row.dn + i, valid);
  const V n1 = Load<kTail>(d, row.n1 + i, valid);
  const V n2 = Load<kTail>(d, row.n2 + i, valid);
  const V n4 = Load<kTail>(d, row.n4 + i, valid);
  const V sh = Shifted(d, c, i, n1, n2, n4);
  const V difference = hn::Sub(Load<kTail>(d, row.n + i, valid), sh);
  wr = hn::MulAdd(dxr, difference, wr);
  wk = hn::MulAdd(dxk, difference, wk);
  wv = hn::MulAdd(dxv, difference, wv);
  w1 = hn::MulAdd(s0, hn::Sub(n1, sh), w1);
  w2 = hn::MulAdd(s0, hn::Sub(n2, sh), w2);
  w4 = hn::MulAdd(s0, hn::Sub(n4, sh), w4);
  return s0;
}

// kRows (1 or 4) rows, the last first: rows[0] is the earliest.
template <size_t kRows, bool kTail>
HWY_INLINE void BackwardVectors(D d, const Coefficients& c, const BackwardRow* rows, size_t i,
                                size_t valid, BackwardState& state) {
  V wr = hn::Load(d, state.sums[3] + i), wk = hn::Load(d, state.sums[4] + i);
  V wv = hn::Load(d, state.sums[5] + i), w1 = hn::Load(d, state.sums[0] + i);
  V w2 = hn::Load(d, state.sums[1] + i), w4 = hn::Load(d, state.sums[2] + i);
  V n0 = hn::Load(d, state.next[0] + i), n1 = hn::Load(d, state.next[1] + i);
  V n2 = hn::Load(d, state.next[2] + i), n3 = hn::Load(d, state.next[3] + i);
  if constexpr (kRows == 4) {
    const V s3 = BackwardVector<kTail>(d, c, rows[3], i, valid, n0, n1, n3, wr, wk, wv, w1, w2, w4);
    const V s2 = BackwardVector<kTail>(d, c, rows[2], i, valid, s3, n0, n2, wr, wk, wv, w1, w2, w4);
    const V s1 = BackwardVector<kTail>(d, c, rows[1], i, valid, s2, s3, n1, wr, wk, wv, w1, w2, w4);
    const V s0 = BackwardVector<kTail>(d, c, rows[0], i, valid, s1, s2, n0, wr, wk, wv, w1, w2, w4);
    n0 = s0, n1 = s1, n2 = s2, n3 = s3;
  } else {
    const V s0 = BackwardVector<kTail>(d, c, rows[0], i, valid, n0, n1, n3, wr, wk, wv, w1, w2, w4);
    n3 = n2, n2 = n1, n1 = n0, n0 = s0;
  }
  hn::Store(n0, d, state.next[0] + i), hn::Store(n1, d, state.next[1] + i);
  hn::Store(n2, d, state.next[2] + i), hn::Store(n3, d, state.next[3] + i);
  hn::Store(wr, d, state.sums[3] + i), hn::Store(wk, d, state.sums[4] + i);
  hn::Store(wv, d, state.sums[5] + i), hn::Store(w1, d, state.sums[0] + i);
  hn::Store(w2, d, state.sums[1] + i), hn::Store(w4, d, state.sums[2] + i);
}

template <size_t kRows>
void BackwardRows(D d, const Coefficients& c, const BackwardRow* rows, size_t count,
                  BackwardState& state) {
  const size_t N = hn::Lanes(d);
  const size_t whole = count / N * N;
  for (size_t i = 0; i < whole; i += N) BackwardVectors<kRows, false>(d, c, rows, i, N, state);
  if (whole < count) BackwardVectors<kRows, true>(d, c, rows, whole, count - whole, state);
}

struct BackwardArgs {
  History history;
  Mat<const float> dxr, dxk, dxv, residual;
  Mat<float> dn;

  BackwardRow Row(size_t t, size_t col) const {
    return {history.At(t, 0, col), history.At(t, 1, col),
            history.At(t, 2, col), history.At(t, 4, col),
            dxr.Row(t) + col,      dxk.Row(t) + col,
            dxv.Row(t) + col,      residual.data == nullptr ? history.zeros : residual.Row(t) + col,
            dn.Row(t) + col};
  }
};

// Gradients of sh in rows t1 to t1 + 3, which are zero after the end.
void StartBackward(D d, const Coefficients& c, const BackwardArgs& args, size_t t1, size_t col,
                   size_t count, BackwardState& state) {
  const size_t N = hn::Lanes(d);
  for (auto& sum : state.sums) std::fill_n(sum, kCols, 0.0f);
  for (size_t j = 0; j < 4; ++j) {
    std::fill_n(state.next[j], kCols, 0.0f);
    const size_t t = t1 + j;
    if (t >= args.dxr.rows) continue;
    for (size_t i = 0; i < count; i += N) {
      const V s = ShiftGradient<true>(d, c, args.dxr.Row(t) + col, args.dxk.Row(t) + col,
                                      args.dxv.Row(t) + col, i, std::min(N, count - i));
      hn::Store(s, d, state.next[j] + i);
    }
  }
}

void Backward(Mat<const float> n, Mat<const float> carried,
              const TokenShiftParams<const float>& params, Mat<const float> dxr,
              Mat<const float> dxk, Mat<const float> dxv, size_t t0, size_t t1,
              Mat<const float> residual, Mat<float> dn, Mat<float> sums) {
  HWY_ALIGN float zeros[kCols] = {};
  Coefficients c;
  BackwardState state;
  const D d;
  const BackwardArgs args{{n, carried, zeros}, dxr, dxk, dxv, residual, dn};
  for (size_t col = 0; col < n.cols; col += kCols) {
    const size_t count = std::min(kCols, n.cols - col);
    Prepare(d, params, col, count, /*rests=*/true, c);
    StartBackward(d, c, args, t1, col, count, state);
    size_t t = t1;
    for (; t >= t0 + 4; t -= 4) {
      const BackwardRow rows[4] = {args.Row(t - 4, col), args.Row(t - 3, col), args.Row(t - 2, col),
                                   args.Row(t - 1, col)};
      BackwardRows<4>(d, c, rows, count, state);
    }
    for (; t > t0; --t) {
      const BackwardRow row = args.Row(t - 1, col);
      BackwardRows<1>(d, c, &row, count, state);
    }
    for (size_t j = 0; j < kTokenShiftSums; ++j) {
      std::copy_n(state.sums[j], count, sums.Row(j) + col);
    }
  }
}

// Row `which` of each block of `per_block` rows, added in order.
V SumBlocks(D d, Mat<const float> sums, size_t per_block, size_t which, size_t col, size_t valid) {
  V total = hn::Zero(d);
  for (size_t row = which; row < sums.rows; row += per_block) {
    total = hn::Add(total, hn::LoadN(d, sums.Row(row) + col, valid));
  }
  return total;
}

void AddN(V v, D d, std::span<float> to, size_t col, size_t valid) {
  Add<true>(v, d, to.data() + col, valid);
}

void ParamGradients(const TokenShiftParams<const float>& p, Mat<const float> sums,
                    const TokenShiftParams<float>& grads) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t col = 0; col < sums.cols; col += N) {
    const size_t valid = std::min(N, sums.cols - col);
    const auto sum = [&](size_t which) HWY_ATTR {
      return SumBlocks(D(), sums, kTokenShiftSums, which, col, valid);
    };
    const auto slope = [&](std::span<const float> raw) HWY_ATTR {
      return hn::Mul(SigmoidAt(D(), raw, col, valid), MinusSigmoidAt(D(), raw, col, valid));
    };
    const V total = ShiftSum(d, SigmoidAt(d, p.w1, col, valid), SigmoidAt(d, p.w2, col, valid),
                             SigmoidAt(d, p.w4, col, valid));
    AddN(hn::Div(hn::Mul(sum(0), slope(p.w1)), total), d, grads.w1, col, valid);
    AddN(hn::Div(hn::Mul(sum(1), slope(p.w2)), total), d, grads.w2, col, valid);
    AddN(hn::Div(hn::Mul(sum(2), slope(p.w4)), total), d, grads.w4, col, valid);
    AddN(hn::Mul(sum(3), slope(p.mix_r)), d, grads.mix_r, col, valid);
    AddN(hn::Mul(sum(4), slope(p.mix_k)), d, grads.mix_k, col, valid);
    AddN(hn::Mul(sum(5), slope(p.mix_v)), d, grads.mix_v, col, valid);
  }
}

}  // namespace
}  // namespace lanewise::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {
HWY_EXPORT(Forward);
HWY_EXPORT(Backward);
HWY_EXPORT(ParamGradients);
}  // namespace

void TokenShiftForward(Mat<const float> n, Mat<const float> carried,
                       const TokenShiftParams<const float>& params, size_t t0, size_t t1,
                       Mat<float> xr, Mat<float> xk, Mat<float> xv) {
  HWY_DYNAMIC_DISPATCH(Forward)(n, carried, params, t0, t1, xr, xk, xv);
}

void TokenShiftBackward(Mat<const float> n, Mat<const float> carried,
                        const TokenShiftParams<const float>& params, Mat<const float> dxr,
                        Mat<const float> dxk, Mat<const float> dxv, size_t t0, size_t t1,
                        Mat<const float> residual, Mat<float> dn, Mat<float> sums) {
  HWY_DYNAMIC_DISPATCH(Backward)
  (n, carried, params, dxr, dxk, dxv, t0, t1, residual, dn, sums);
}

void TokenShiftParamGradients(const TokenShiftParams<const float>& params, Mat<const float> sums,
                              const TokenShiftParams<float>& grads) {
  HWY_DYNAMIC_DISPATCH(ParamGradients)(params, sums, grads);
}

void ShiftCarry(Mat<const float> n, size_t length, Mat<const float> carried_in,
                Mat<float> carried_out) {
  const size_t rows = carried_out.rows;
  for (size_t j = 0; j < rows; ++j) {
    // In rising order, so that rows of the old matrix are read before they are overwritten.
    const size_t from = length + j;
    if (from >= rows) {
      std::copy_n(n.Row(from - rows), n.cols, carried_out.Row(j));
    } else if (carried_in.data == nullptr) {
      std::fill_n(carried_out.Row(j), n.cols, 0.0f);
    } else {
      std::copy_n(carried_in.Row(from), n.cols, carried_out.Row(j));
    }
  }
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
