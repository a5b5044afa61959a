// Types of the graph: what a tensor is before it has memory (TensorInfo) and while a node runs
// (Tensor).
#ifndef LANEWISE_RUNTIME_TENSOR_H_
#define LANEWISE_RUNTIME_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "kernels/view.h"

namespace lanewise::runtime {

using kernels::Mat;

enum class DType : uint8_t { kFloat32, kInt32, kBFloat16 };

constexpr size_t SizeOf(DType dtype) { return dtype == DType::kBFloat16 ? 2 : 4; }

// Who gives a tensor its memory.
enum class Role : uint8_t {
  kActivation,  // the plan, from the arena; lives from its producer to its last reader
  kExternal,    // the caller, by Executor::Bind: inputs, targets, states, results
  kConstant,    // the graph itself (tables)
  kParameter,   // the flat weight buffer, at `offset`
  kGradient,    // the flat gradient buffer, at the same `offset`; operations add to it
};

// The flat buffers that parameter offsets refer to: float32, and bf16 for the parameters that a
// graph declares as such. Either may be null where a graph does not use it.
struct Weights {
  // NOLINTNEXTLINE(google-explicit-constructor): most weights are float32 alone
  Weights(const float* full_in, const kernels::BFloat16* half_in = nullptr)
      : full(full_in), half(half_in) {}
  const float* full;
  const kernels::BFloat16* half;
};

// Names a tensor of one graph. Default-constructed: no tensor (an optional input left out).
struct TensorId {
  int32_t index = -1;
  explicit operator bool() const { return index >= 0; }
  bool operator==(const TensorId&) const = default;
};

// A matrix [rows, cols] of the graph. Sequences are stacked: row = sequence * steps + step.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kFloat32;
  Role role = Role::kActivation;
  size_t rows = 0;
  size_t cols = 0;
  size_t stride = 0;      // elements between rows; a view's is its base's
  size_t offset = 0;      // parameters, gradients: first element within the flat buffer
  TensorId view_of = {};  // a view: columns [view_col, view_col + cols) of this tensor
  size_t view_col = 0;
  const void* constant = nullptr;

  size_t Bytes() const { return rows == 0 ? 0 : ((rows - 1) * stride + cols) * SizeOf(dtype); }
};

// A tensor with memory, as operations see it. data is null for an optional tensor that is absent.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  size_t rows = 0;
  size_t cols = 0;
  size_t stride = 0;

  explicit operator bool() const { return data != nullptr; }
  Mat<float> F32() const { return {static_cast<float*>(data), rows, cols, stride}; }
  // All elements in a row; only for tensors without gaps between rows.
  std::span<float> Flat() const { return {static_cast<float*>(data), rows * cols}; }
  Mat<kernels::BFloat16> BF16() const {
    return {static_cast<kernels::BFloat16*>(data), rows, cols, stride};
  }
  std::span<const int32_t> Ints() const { return {static_cast<const int32_t*>(data), rows * cols}; }
};

inline bool IsBf16(const Tensor& t) { return t.dtype == DType::kBFloat16; }

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_TENSOR_H_
