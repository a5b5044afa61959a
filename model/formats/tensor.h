// Tensors on their way from and to files: what is known of one before its bytes are touched.
#ifndef LANEWISE_MODEL_FORMATS_TENSOR_H_
#define LANEWISE_MODEL_FORMATS_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lanewise::model {

enum class DType {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64
};

size_t DTypeSize(DType dtype);
std::string_view DTypeName(DType dtype);  // as safetensors spells it: "F32", "BF16", …
std::optional<DType> ParseDType(std::string_view name);

using Shape = std::vector<uint64_t>;
std::string ShapeText(const Shape& shape);  // "[3, 4]"
// Product of the sizes (1 for none); nothing where it does not fit 64 bits.
std::optional<uint64_t> CheckedElements(const Shape& shape);

// Takes the next bytes of a tensor.
using ByteSink = std::function<void(std::span<const std::byte>)>;

// A tensor to be written. `produce` gives its bytes in order, in pieces of any size, and is called
// twice (for the checksum and for the file): it must give the same bytes both times. Nothing is
// copied, so what it reads must stay alive.
struct TensorSource {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::function<void(const ByteSink&)> produce;

  uint64_t ByteSize() const;
};

// A contiguous tensor.
TensorSource MakeSource(std::string name, Shape shape, std::span<const float> values);
TensorSource MakeSource(std::string name, Shape shape, std::span<const int32_t> values);
// Rows of `cols` floats that start `stride` floats apart.
TensorSource MakeStridedSource(std::string name, const float* data, size_t rows, size_t cols,
                               size_t stride);

float BF16ToFloat(uint16_t value);
float F16ToFloat(uint16_t value);

// A tensor that was found in a file. The bytes need not be aligned.
struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::span<const std::byte> bytes;
  std::string file = {};  // where it was found, for errors

  uint64_t Elements() const { return bytes.size() / DTypeSize(dtype); }
  // Elements [first, first + out.size()) as float32, from F32, BF16, F16 and F64. InputError for
  // others.
  void ReadFloats(uint64_t first, std::span<float> out) const;
};

// Index of the first NaN or infinity among floats that need not be aligned.
std::optional<uint64_t> FindNonFinite(const TensorView& tensor);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_FORMATS_TENSOR_H_
