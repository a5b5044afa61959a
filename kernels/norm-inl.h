// Rows with a mean of zero and a variance of one (kCentered: layer normalization) or a mean square
// of one (RMS normalization), forward and backward. For use inside these kernels.
#if defined(LANEWISE_KERNELS_NORM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_NORM_INL_H_
#undef LANEWISE_KERNELS_NORM_INL_H_
#else
#define LANEWISE_KERNELS_NORM_INL_H_
#endif

#include <cstddef>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/loop-inl.h"
#include "kernels/targets.h"
#include "kernels/view.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace norm {

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

// kRows rows at a time, 4 or 1, with the same bits: a horizontal sum waits long for little work.
template <size_t kRows>
struct RowGroup {
  static_assert(kRows == 1 || kRows == 4);
  const float* x[4];
  float mean[4] = {};  // stays zero unless kCentered
  float rstd[4];
};

// acc = f(row, acc, column, vector of its columns) for kRows rows at once, and the sums of their
// lanes. What a partial vector lacks is fill[row].
template <size_t kRows, class F>
HWY_INLINE void SumColumns(DF d, const RowGroup<kRows>& group, size_t size, const float* fill,
                           float* HWY_RESTRICT out, const F& f) {
  const size_t lanes = hn::Lanes(d);
  VF s0 = hn::Zero(d);
  VF s1 = hn::Zero(d);
  VF s2 = hn::Zero(d);
  VF s3 = hn::Zero(d);
  size_t c = 0;
  for (; c + lanes <= size; c += lanes) {
    s0 = f(0, s0, c, hn::LoadU(d, group.x[0] + c));
    if constexpr (kRows == 4) {
      s1 = f(1, s1, c, hn::LoadU(d, group.x[1] + c));
      s2 = f(2, s2, c, hn::LoadU(d, group.x[2] + c));
      s3 = f(3, s3, c, hn::LoadU(d, group.x[3] + c));
    }
  }
  if (c < size) {
    const size_t n = size - c;
    s0 = f(0, s0, c, hn::LoadNOr(hn::Set(d, fill[0]), d, group.x[0] + c, n));
    if constexpr (kRows == 4) {
      s1 = f(1, s1, c, hn::LoadNOr(hn::Set(d, fill[1]), d, group.x[1] + c, n));
      s2 = f(2, s2, c, hn::LoadNOr(hn::Set(d, fill[2]), d, group.x[2] + c, n));
      s3 = f(3, s3, c, hn::LoadNOr(hn::Set(d, fill[3]), d, group.x[3] + c, n));
    }
  }
  SumLanes(d, s0, s1, s2, s3, out);
}

struct ForwardArgs {
  Mat<const float> x;
  const float* w;
  const float* b;  // kCentered only
  float eps;
  Mat<float> y;
  float* mean;  // or null
  float* rstd;  // or null
};

template <bool kCentered, bool kFetch, size_t kRows>
HWY_INLINE void Statistics(DF d, const ForwardArgs& args, Mat<float> y, RowGroup<kRows>& group) {
  constexpr float kZeros[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  const size_t size = args.x.cols;
  const float inverse = 1.0f / static_cast<float>(size);
  // Row after row the lines of y can be fetched in time; the writes come from all rows in turn.
  const auto fetch = [&](size_t i, size_t c) HWY_ATTR {
    if constexpr (kFetch) hwy::Prefetch(y.Row(i) + c);
  };
  float sums[4];
  if constexpr (kCentered) {
    SumColumns(d, group, size, kZeros, sums, [&](size_t i, VF acc, size_t c, VF v) HWY_ATTR {
      fetch(i, c);
      return hn::Add(acc, v);
    });
    for (size_t i = 0; i < kRows; ++i) group.mean[i] = sums[i] * inverse;
    const float* mean = group.mean;
    SumColumns(d, group, size, mean, sums, [mean](size_t i, VF acc, size_t, VF v) HWY_ATTR {
      const VF centered = hn::Sub(v, hn::Set(DF(), mean[i]));
      return hn::MulAdd(centered, centered, acc);
    });
  } else {
    SumColumns(d, group, size, kZeros, sums, [&](size_t i, VF acc, size_t c, VF v) HWY_ATTR {
      fetch(i, c);
      return hn::MulAdd(v, v, acc);
    });
  }
  const hn::CappedTag<float, 4> four;
  for (size_t i = 0; i < 4; i += hn::Lanes(four)) {
    const auto variance =
        hn::MulAdd(hn::LoadU(four, sums + i), hn::Set(four, inverse), hn::Set(four, args.eps));
    hn::StoreU(hn::Div(hn::Set(four, 1.0f), hn::Sqrt(variance)), four, group.rstd + i);
  }
}

template <bool kCentered, size_t kRows>
HWY_INLINE VF Output(DF d, VF x, const RowGroup<kRows>& group, size_t i, VF w, VF b) {
  const VF rstd = hn::Set(d, group.rstd[i]);
  if constexpr (kCentered) {
    return hn::MulAdd(hn::Mul(hn::Sub(x, hn::Set(d, group.mean[i])), rstd), w, b);
  } else {
    return hn::Mul(hn::Mul(x, rstd), w);
  }
}

// The columns of all rows at once: w and b are loaded once for them.
template <bool kCentered, bool kFetch, size_t kRows>
HWY_INLINE void ForwardRows(DF d, const ForwardArgs& args, size_t r) {
  const size_t lanes = hn::Lanes(d);
  const size_t size = args.x.cols;
  const size_t ahead = kRows * args.x.stride;
  RowGroup<kRows> group;
  for (size_t i = 0; i < kRows; ++i) group.x[i] = args.x.Row(r + i);
  Statistics<kCentered, kFetch>(d, args, args.y.Rows(r, kRows), group);
  for (size_t i = 0; i < kRows; ++i) {
    if (kCentered && args.mean != nullptr) args.mean[r + i] = group.mean[i];
    if (args.rstd != nullptr) args.rstd[r + i] = group.rstd[i];
  }
  float* const y = args.y.Row(r);
  size_t c = 0;
  for (; c + lanes <= size; c += lanes) {
    const VF w = hn::LoadU(d, args.w + c);
    const VF b = kCentered ? hn::LoadU(d, args.b + c) : w;
    for (size_t i = 0; i < kRows; ++i) {
      if constexpr (kRows > 1) FetchAhead(group.x[i] + c, ahead);
      const VF x = hn::LoadU(d, group.x[i] + c);
      hn::StoreU(Output<kCentered>(d, x, group, i, w, b), d, y + i * args.y.stride + c);
    }
  }
  if (c < size) {
    const size_t n = size - c;
    const VF w = hn::LoadN(d, args.w + c, n);
    const VF b = kCentered ? hn::LoadN(d, args.b + c, n) : w;
    for (size_t i = 0; i < kRows; ++i) {
      const VF x = hn::LoadN(d, group.x[i] + c, n);
      hn::StoreN(Output<kCentered>(d, x, group, i, w, b), d, y + i * args.y.stride + c, n);
    }
  }
}

template <bool kCentered, bool kFetch>
void ForwardAll(ForwardArgs args) {  // by value: nothing stored can change it
  const DF d;
  size_t r = 0;
  for (; r + 4 <= args.x.rows; r += 4) ForwardRows<kCentered, kFetch, 4>(d, args, r);
  for (; r < args.x.rows; ++r) ForwardRows<kCentered, kFetch, 1>(d, args, r);
}

template <bool kCentered>
void ForwardInOrder(ForwardArgs args) {
  const DF d;
  for (size_t r = 0; r < args.x.rows; ++r) ForwardRows<kCentered, false, 1>(d, args, r);
}

// More floats than this are not expected in the second-level cache.
constexpr size_t kFetchFloats = size_t{1} << 17;
// And more than this in no cache. Zen 4 reads and writes them twice as fast one row after the other
// as four in turn with their lines fetched; Intel's CPUs do not.
constexpr size_t kMemoryFloats = size_t{1} << 22;
inline bool InOrder(Mat<const float> x) {
  return x.rows * x.cols > kMemoryFloats && IsZen4OrLater();
}

template <bool kCentered>
void Forward(const ForwardArgs& args) {
  if (InOrder(args.x)) {
    ForwardInOrder<kCentered>(args);
  } else if (args.x.rows * args.x.cols > kFetchFloats) {
    ForwardAll<kCentered, true>(args);
  } else {
    ForwardAll<kCentered, false>(args);
  }
}

struct BackwardArgs {
  Mat<const float> x;
  const float* w;
  const float* mean;  // kCentered only
  const float* rstd;
  Mat<const float> dy;
  Mat<float> dx;
  float* dw;                  // or null
  float* db;                  // or null; kCentered only
  Mat<const float> residual;  // or null data
};

// dx = rstd g - (rstd mean_c g) - xhat (rstd mean_c(g xhat)): the factors of one row.
struct RowFactors {
  float mean, rstd, shift, slope;
};

template <bool kCentered>
HWY_INLINE VF Centered(DF d, VF x, float mean) {
  return kCentered ? hn::Sub(x, hn::Set(d, mean)) : x;
}

template <bool kCentered, bool kFetch>
HWY_INLINE RowFactors RowSums(DF d, const BackwardArgs& args, size_t r) {
  const size_t lanes = hn::Lanes(d);
  const size_t size = args.x.cols;
  const float* x = args.x.Row(r);
  const float* dy = args.dy.Row(r);
  const float* dx = args.dx.Row(r);
  const float mean = kCentered ? args.mean[r] : 0.0f;
  VF g0 = hn::Zero(d);
  VF g1 = hn::Zero(d);
  VF gx0 = hn::Zero(d);
  VF gx1 = hn::Zero(d);
  size_t c = 0;
  for (; c + 2 * lanes <= size; c += 2 * lanes) {
    // Row after row the lines of dx can be fetched in time; the writes come from four rows in turn.
    if constexpr (kFetch) {
      hwy::Prefetch(dx + c);
      hwy::Prefetch(dx + c + lanes);
    }
    const VF a = hn::Mul(hn::LoadU(d, dy + c), hn::LoadU(d, args.w + c));
    const VF b = hn::Mul(hn::LoadU(d, dy + c + lanes), hn::LoadU(d, args.w + c + lanes));
    if constexpr (kCentered) {
      g0 = hn::Add(g0, a);
      g1 = hn::Add(g1, b);
    }
    gx0 = hn::MulAdd(a, Centered<kCentered>(d, hn::LoadU(d, x + c), mean), gx0);
    gx1 = hn::MulAdd(b, Centered<kCentered>(d, hn::LoadU(d, x + c + lanes), mean), gx1);
  }
  for (; c < size; c += lanes) {
    const size_t n = HWY_MIN(lanes, size - c);
    const VF a = hn::Mul(hn::LoadN(d, dy + c, n), hn::LoadN(d, args.w + c, n));
    if constexpr (kCentered) g0 = hn::Add(g0, a);
    gx0 = hn::MulAdd(a, Centered<kCentered>(d, hn::LoadN(d, x + c, n), mean), gx0);
  }
  const float rstd = args.rstd[r];
  const float scale = rstd / static_cast<float>(size);
  const float shift = kCentered ? scale * hn::ReduceSum(d, hn::Add(g0, g1)) : 0.0f;
  return {mean, rstd, shift, scale * rstd * hn::ReduceSum(d, hn::Add(gx0, gx1))};
}

// n = 0 stands for a full vector, so that full vectors do without masks.
HWY_INLINE VF LoadPart(DF d, const float* p, size_t n) {
  return n == 0 ? hn::LoadU(d, p) : hn::LoadN(d, p, n);
}

HWY_INLINE void StorePart(VF v, DF d, float* p, size_t n) {
  if (n == 0) {
    hn::StoreU(v, d, p);
  } else {
    hn::StoreN(v, d, p, n);
  }
}

// One vector of columns of kRows rows. The parameters' gradients stay in registers meanwhile.
template <bool kCentered, size_t kRows>
HWY_INLINE void BackwardColumns(DF d, const BackwardArgs& args, const RowFactors* rows, size_t r,
                                size_t c, size_t n) {
  const VF w = LoadPart(d, args.w + c, n);
  VF dw = args.dw != nullptr ? LoadPart(d, args.dw + c, n) : hn::Zero(d);
  VF db = kCentered && args.db != nullptr ? LoadPart(d, args.db + c, n) : hn::Zero(d);
  for (size_t i = 0; i < kRows; ++i) {
    const VF dy = LoadPart(d, args.dy.Row(r + i) + c, n);
    const VF x = LoadPart(d, args.x.Row(r + i) + c, n);
    const VF rstd = hn::Set(d, rows[i].rstd);
    const VF xhat = hn::Mul(Centered<kCentered>(d, x, rows[i].mean), rstd);
    dw = hn::MulAdd(dy, xhat, dw);
    VF dx = hn::Mul(dy, w);
    if constexpr (kCentered) {
      db = hn::Add(dy, db);
      dx = hn::MulSub(dx, rstd, hn::Set(d, rows[i].shift));
    } else {
      dx = hn::Mul(dx, rstd);
    }
    dx = hn::NegMulAdd(xhat, hn::Set(d, rows[i].slope), dx);
    if (args.residual.data != nullptr) {
      dx = hn::Add(dx, LoadPart(d, args.residual.Row(r + i) + c, n));
    }
    StorePart(dx, d, args.dx.Row(r + i) + c, n);
  }
  if (args.dw != nullptr) StorePart(dw, d, args.dw + c, n);
  if (kCentered && args.db != nullptr) StorePart(db, d, args.db + c, n);
}

template <bool kCentered, size_t kRows>
HWY_INLINE void BackwardRows(DF d, const BackwardArgs& args, size_t r) {
  constexpr bool kFetch = kRows != 1;
  RowFactors rows[kRows];
  for (size_t i = 0; i < kRows; ++i) rows[i] = RowSums<kCentered, kFetch>(d, args, r + i);
  const size_t lanes = hn::Lanes(d);
  const size_t size = args.x.cols;
  size_t c = 0;
  for (; c + lanes <= size; c += lanes) BackwardColumns<kCentered, kRows>(d, args, rows, r, c, 0);
  if (c < size) BackwardColumns<kCentered, kRows>(d, args, rows, r, c, size - c);
}

template <bool kCentered>
void Backward(BackwardArgs args) {  // by value: nothing stored can change it
  const DF d;
  const bool in_order = InOrder(args.x);
  size_t r = 0;
  for (; !in_order && r + 4 <= args.x.rows; r += 4) BackwardRows<kCentered, 4>(d, args, r);
  for (; r < args.x.rows; ++r) BackwardRows<kCentered, 1>(d, args, r);
}

}  // namespace norm
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
