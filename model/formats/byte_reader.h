// Reads fields of a binary file one after the other; every read is checked against the bytes that
// remain, and errors name file, offset and field.
#ifndef LANEWISE_MODEL_FORMATS_BYTE_READER_H_
#define LANEWISE_MODEL_FORMATS_BYTE_READER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "model/error.h"
#include "model/formats/tensor.h"

namespace lanewise::model {

class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string where)
      : bytes_(bytes), where_(std::move(where)) {}

  size_t offset() const { return offset_; }
  size_t remaining() const { return bytes_.size() - offset_; }
  const std::string& where() const { return where_; }

  // The next `size` bytes.
  std::span<const std::byte> Take(uint64_t size, std::string_view field) {
    if (size > remaining()) {
      Fail(field, std::to_string(size) + " bytes are needed and " + std::to_string(remaining()) +
                      " remain; the file is truncated or foreign");
    }
    const auto result = bytes_.subspan(offset_, static_cast<size_t>(size));
    offset_ += static_cast<size_t>(size);
    return result;
  }

  template <typename T>
  T Read(std::string_view field) {
    T value;
    std::memcpy(&value, Take(sizeof value, field).data(), sizeof value);
    return value;
  }

  // An int32 from lowest to highest.
  int32_t ReadInt(std::string_view field, int32_t lowest, int32_t highest) {
    const size_t at = offset_;
    const auto value = Read<int32_t>(field);
    if (value < lowest || value > highest) {
      offset_ = at;
      Fail(field, "is " + std::to_string(value) + ", must be from " + std::to_string(lowest) +
                      " to " + std::to_string(highest));
    }
    return value;
  }

  // A float32 tensor of this shape, checked to be finite.
  TensorView TakeFloats(std::string name, Shape shape) {
    const auto elements = CheckedElements(shape);
    if (!elements || *elements > remaining() / sizeof(float)) {
      Fail(name, "shape " + ShapeText(shape) + " needs more than the " +
                     std::to_string(remaining()) + " bytes that remain");
    }
    const size_t at = offset_;
    TensorView view{std::move(name), DType::kF32, std::move(shape),
                    Take(*elements * sizeof(float), "tensor")};
    if (const auto bad = FindNonFinite(view)) {
      offset_ = at + static_cast<size_t>(*bad) * sizeof(float);
      Fail(view.name, "entry " + std::to_string(*bad) + " is NaN or infinite");
    }
    return view;
  }

  void ExpectEnd() const {
    if (remaining() != 0) {
      throw InputError(where_ + ": " + std::to_string(remaining()) +
                       " bytes after the last field, at offset " + std::to_string(offset_));
    }
  }

  [[noreturn]] void Fail(std::string_view field, const std::string& what) const {
    throw InputError(where_ + ": offset " + std::to_string(offset_) + ": " + std::string(field) +
                     ": " + what);
  }

 private:
  std::span<const std::byte> bytes_;
  std::string where_;
  size_t offset_ = 0;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_FORMATS_BYTE_READER_H_
