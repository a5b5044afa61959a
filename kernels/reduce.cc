#include "kernels/reduce.h"

#include <algorithm>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/reduce.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

void FillArray(float value, float* y, size_t n) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  const VF v = hn::Set(d, value);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(v, d, y + i);
  if (i < n) hn::StoreN(v, d, y + i, n - i);
}

void ScaleArray(float s, const float* x, float* y, size_t n) {
  Map(DF(), x, y, n, [s](DF d, VF v) HWY_ATTR { return hn::Mul(v, hn::Set(d, s)); });
}

void AddArrays(const float* a, const float* b, float* y, size_t n) {
  Map(DF(), a, b, y, n, [](DF, VF u, VF v) HWY_ATTR { return hn::Add(u, v); });
}

void MultiplyArrays(const float* a, const float* b, float* y, size_t n) {
  Map(DF(), a, b, y, n, [](DF, VF u, VF v) HWY_ATTR { return hn::Mul(u, v); });
}

void AddScaledArray(float s, const float* x, float* y, size_t n) {
  Map(DF(), x, y, y, n, [s](DF d, VF u, VF v) HWY_ATTR { return hn::MulAdd(u, hn::Set(d, s), v); });
}

// Rows [r, r + kRows) on top of y: y is read and written once for several rows.
template <size_t kRows>
HWY_INLINE void AddSomeRows(Mat<const float> x, size_t r, float* y) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  for (size_t c = 0; c < x.cols; c += lanes) {
    const size_t n = std::min(lanes, x.cols - c);
    if (n == lanes) {
      VF sum = hn::LoadU(d, y + c);
      for (size_t i = 0; i < kRows; ++i) sum = hn::Add(sum, hn::LoadU(d, x.Row(r + i) + c));
      hn::StoreU(sum, d, y + c);
    } else {
      VF sum = hn::LoadN(d, y + c, n);
      for (size_t i = 0; i < kRows; ++i) sum = hn::Add(sum, hn::LoadN(d, x.Row(r + i) + c, n));
      hn::StoreN(sum, d, y + c, n);
    }
  }
}

void AddRowsTo(Mat<const float> x, float* y) {
  size_t r = 0;
  for (; r + 8 <= x.rows; r += 8) AddSomeRows<8>(x, r, y);
  for (; r < x.rows; ++r) AddSomeRows<1>(x, r, y);
}

// The tree over rows [first, first + count), count >= 1, for one vector of columns.
template <class Load>
VF SumTree(const Load& load, size_t first, size_t count) {
  switch (count) {
    case 1:
      return load(first);
    case 2:
      return hn::Add(load(first), load(first + 1));
    case 4:
      return hn::Add(hn::Add(load(first), load(first + 1)),
                     hn::Add(load(first + 2), load(first + 3)));
    default:
      break;
  }
  size_t half = 1;
  while (half * 2 < count) half *= 2;
  return hn::Add(SumTree(load, first, half), SumTree(load, first + half, count - half));
}

void SumRowsTo(Mat<const float> x, float* y) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  if (x.rows == 0) return FillArray(0.0f, y, x.cols);
  size_t c = 0;
  const auto full = [&x, &c](size_t r) HWY_ATTR { return hn::LoadU(DF(), x.Row(r) + c); };
  for (; c + lanes <= x.cols; c += lanes) hn::StoreU(SumTree(full, 0, x.rows), d, y + c);
  if (c < x.cols) {
    const size_t n = x.cols - c;
    const auto part = [&x, c, n](size_t r) HWY_ATTR { return hn::LoadN(DF(), x.Row(r) + c, n); };
    hn::StoreN(SumTree(part, 0, x.rows), d, y + c, n);
  }
}

// --- Sums in double. ---

#if HWY_HAVE_FLOAT64

using DD = hn::ScalableTag<double>;
using VD = hn::Vec<DD>;
using DHalf = hn::Rebind<float, DD>;  // as many floats as a vector has doubles

// Sum of term(a, b) over two arrays (the same one twice for sums of one), in double.
template <class Term>
HWY_INLINE double SumOf(const float* a, const float* b, size_t n, const Term& term) {
  const DD d;
  const DHalf half;
  const size_t lanes = hn::Lanes(d);
  VD s0 = hn::Zero(d);
  VD s1 = hn::Zero(d);
  VD s2 = hn::Zero(d);
  VD s3 = hn::Zero(d);
  size_t i = 0;
  const auto load = [](const float* p)
                        HWY_ATTR { return hn::PromoteTo(DD(), hn::LoadU(DHalf(), p)); };
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = term(s0, load(a + i), load(b + i));
    s1 = term(s1, load(a + i + lanes), load(b + i + lanes));
    s2 = term(s2, load(a + i + 2 * lanes), load(b + i + 2 * lanes));
    s3 = term(s3, load(a + i + 3 * lanes), load(b + i + 3 * lanes));
  }
  for (; i < n; i += lanes) {
    const size_t count = std::min(lanes, n - i);
    s0 = term(s0, hn::PromoteTo(d, hn::LoadN(half, a + i, count)),
              hn::PromoteTo(d, hn::LoadN(half, b + i, count)));
  }
  return hn::ReduceSum(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

double SumArray(const float* x, size_t n) {
  return SumOf(x, x, n, [](VD s, VD a, VD) HWY_ATTR { return hn::Add(s, a); });
}

double DotArrays(const float* a, const float* b, size_t n) {
  return SumOf(a, b, n, [](VD s, VD u, VD v) HWY_ATTR { return hn::MulAdd(u, v, s); });
}

#else

double SumArray(const float* x, size_t n) {
  double sum = 0.0;
  for (size_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]);
  return sum;
}

double DotArrays(const float* a, const float* b, size_t n) {
  double sum = 0.0;
  for (size_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

#endif  // HWY_HAVE_FLOAT64

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {

HWY_EXPORT(FillArray);
HWY_EXPORT(ScaleArray);
HWY_EXPORT(AddArrays);
HWY_EXPORT(MultiplyArrays);
HWY_EXPORT(AddScaledArray);
HWY_EXPORT(AddRowsTo);
HWY_EXPORT(SumRowsTo);
HWY_EXPORT(SumArray);
HWY_EXPORT(DotArrays);

}  // namespace

void Fill(float value, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(FillArray)(value, y.data(), y.size());
}

void Scale(float s, std::span<const float> x, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(ScaleArray)(s, x.data(), y.data(), y.size());
}

void AddTo(std::span<const float> x, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(AddArrays)(y.data(), x.data(), y.data(), y.size());
}

void AddScaledTo(float s, std::span<const float> x, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(AddScaledArray)(s, x.data(), y.data(), y.size());
}

void Add(std::span<const float> a, std::span<const float> b, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(AddArrays)(a.data(), b.data(), y.data(), y.size());
}

void Multiply(std::span<const float> a, std::span<const float> b, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(MultiplyArrays)(a.data(), b.data(), y.data(), y.size());
}

void AddRows(Mat<const float> x, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(AddRowsTo)(x, y.data());
}

void SumRowsTree(Mat<const float> x, std::span<float> y) {
  HWY_DYNAMIC_DISPATCH(SumRowsTo)(x, y.data());
}

double Sum(std::span<const float> x) { return HWY_DYNAMIC_DISPATCH(SumArray)(x.data(), x.size()); }

double SumSquares(std::span<const float> x) {
  return HWY_DYNAMIC_DISPATCH(DotArrays)(x.data(), x.data(), x.size());
}

double Dot(std::span<const float> a, std::span<const float> b) {
  return HWY_DYNAMIC_DISPATCH(DotArrays)(a.data(), b.data(), a.size());
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
