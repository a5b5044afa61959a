#include "kernels/embedding.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/embedding.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/bfloat16-inl.h"
#include "kernels/loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

void CopyRows(Mat<const float> table, const int32_t* ids, Mat<float> y) {
  for (size_t r = 0; r < y.rows; ++r) {
    Map(DF(), table.Row(static_cast<size_t>(ids[r])), y.Row(r), y.cols,
        [](DF, VF v) HWY_ATTR { return v; });
  }
}

void WidenRows(Mat<const BFloat16> table, const int32_t* ids, Mat<float> y) {
  for (size_t r = 0; r < y.rows; ++r) {
    bf16::WidenRange(table.Row(static_cast<size_t>(ids[r])), y.Row(r), y.cols);
  }
}

void AddToRows(const int32_t* ids, Mat<const float> dy, Mat<float> dtable) {
  for (size_t r = 0; r < dy.rows; ++r) {
    float* row = dtable.Row(static_cast<size_t>(ids[r]));
    Map(DF(), row, dy.Row(r), row, dy.cols, [](DF, VF a, VF b) HWY_ATTR { return hn::Add(a, b); });
  }
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {

HWY_EXPORT(CopyRows);
HWY_EXPORT(WidenRows);
HWY_EXPORT(AddToRows);

}  // namespace

void EmbeddingForward(Mat<const float> table, std::span<const int32_t> ids, Mat<float> y) {
  HWY_DYNAMIC_DISPATCH(CopyRows)(table, ids.data(), y);
}

void EmbeddingForward(Mat<const BFloat16> table, std::span<const int32_t> ids, Mat<float> y) {
  HWY_DYNAMIC_DISPATCH(WidenRows)(table, ids.data(), y);
}

void EmbeddingBackward(std::span<const int32_t> ids, Mat<const float> dy, Mat<float> dtable) {
  HWY_DYNAMIC_DISPATCH(AddToRows)(ids.data(), dy, dtable);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
