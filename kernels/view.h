// Plain views of memory, shared by all kernels.
#ifndef LANEWISE_KERNELS_VIEW_H_
#define LANEWISE_KERNELS_VIEW_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace lanewise::kernels {

// The upper half of a float32.
struct BFloat16 {
  uint16_t bits;
};

// A row-major matrix in memory that somebody else owns: element (r, c) is data[r * stride + c].
// Constness is in T: Mat<const float> is an input, Mat<float> an output.
template <typename T>
struct Mat {
  T* data = nullptr;
  size_t rows = 0;
  size_t cols = 0;
  size_t stride = 0;  // elements from one row to the next, >= cols

  T* Row(size_t r) const { return data + r * stride; }
  std::span<T> RowSpan(size_t r) const { return {Row(r), cols}; }
  // Rows [begin, begin + count).
  Mat Rows(size_t begin, size_t count) const { return {Row(begin), count, cols, stride}; }
  // Columns [begin, begin + count).
  Mat Cols(size_t begin, size_t count) const { return {data + begin, rows, count, stride}; }

  operator Mat<const T>() const  // NOLINT(google-explicit-constructor): an output may be read
    requires(!std::is_const_v<T>)
  {
    return {data, rows, cols, stride};
  }
};

// An optional span or matrix is left out by an empty one: of no elements, wherever its data points.
template <typename T>
T* DataOrNull(std::span<T> v) {
  return v.empty() ? nullptr : v.data();
}
template <typename T>
Mat<T> OrNull(Mat<T> m) {
  return m.rows == 0 || m.cols == 0 ? Mat<T>{} : m;
}

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_VIEW_H_
