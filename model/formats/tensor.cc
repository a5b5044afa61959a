#include "model/formats/tensor.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "model/error.h"

namespace lanewise::model {
namespace {

static_assert(std::endian::native == std::endian::little,
              "files are little-endian and read without conversion");

struct DTypeEntry {
  DType dtype;
  std::string_view name;
  size_t size;
};
constexpr DTypeEntry kDTypes[] = {
    {DType::kBool, "BOOL", 1},      {DType::kU8, "U8", 1},          {DType::kI8, "I8", 1},
    {DType::kF8E4M3, "F8_E4M3", 1}, {DType::kF8E5M2, "F8_E5M2", 1}, {DType::kI16, "I16", 2},
    {DType::kU16, "U16", 2},        {DType::kF16, "F16", 2},        {DType::kBF16, "BF16", 2},
    {DType::kI32, "I32", 4},        {DType::kU32, "U32", 4},        {DType::kF32, "F32", 4},
    {DType::kI64, "I64", 8},        {DType::kU64, "U64", 8},        {DType::kF64, "F64", 8},
};

const DTypeEntry& EntryOf(DType dtype) {
  return *std::find_if(std::begin(kDTypes), std::end(kDTypes),
                       [&](const DTypeEntry& entry) { return entry.dtype == dtype; });
}

template <typename T>
T Load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <typename T, typename Convert>
void ConvertTo(const std::byte* from, std::span<float> out, const Convert& convert) {
  for (size_t i = 0; i < out.size(); ++i) out[i] = convert(Load<T>(from + i * sizeof(T)));
}

}  // namespace

size_t DTypeSize(DType dtype) { return EntryOf(dtype).size; }
std::string_view DTypeName(DType dtype) { return EntryOf(dtype).name; }

std::optional<DType> ParseDType(std::string_view name) {
  for (const DTypeEntry& entry : kDTypes) {
    if (entry.name == name) return entry.dtype;
  }
  return std::nullopt;
}

std::string ShapeText(const Shape& shape) {
  std::string text = "[";
  for (const uint64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

std::optional<uint64_t> CheckedElements(const Shape& shape) {
  // A zero anywhere makes the product 0, whatever the others are.
  if (std::find(shape.begin(), shape.end(), 0u) != shape.end()) return 0;
  uint64_t product = 1;
  for (const uint64_t size : shape) {
    if (product > UINT64_MAX / size) return std::nullopt;
    product *= size;
  }
  return product;
}

uint64_t TensorSource::ByteSize() const {
  // Throws if there are too many. NOLINTNEXTLINE(bugprone-unchecked-optional-access)
  return CheckedElements(shape).value() * DTypeSize(dtype);
}

TensorSource MakeSource(std::string name, Shape shape, std::span<const float> values) {
  return {std::move(name), DType::kF32, std::move(shape),
          [values](const ByteSink& sink) { sink(std::as_bytes(values)); }};
}

TensorSource MakeSource(std::string name, Shape shape, std::span<const int32_t> values) {
  return {std::move(name), DType::kI32, std::move(shape),
          [values](const ByteSink& sink) { sink(std::as_bytes(values)); }};
}

TensorSource MakeStridedSource(std::string name, const float* data, size_t rows, size_t cols,
                               size_t stride) {
  return {std::move(name), DType::kF32, {rows, cols}, [=](const ByteSink& sink) {
            for (size_t r = 0; r < rows; ++r) {
              sink(std::as_bytes(std::span(data + r * stride, cols)));
            }
          }};
}

float BF16ToFloat(uint16_t value) { return std::bit_cast<float>(uint32_t{value} << 16); }

float F16ToFloat(uint16_t value) {
  const uint32_t sign = uint32_t{value & 0x8000u} << 16;
  const uint32_t exponent = (value >> 10) & 0x1F;
  const uint32_t mantissa = value & 0x3FF;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000 | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  return sign != 0 ? -magnitude : magnitude;
}

void TensorView::ReadFloats(uint64_t first, std::span<float> out) const {
  if (first > Elements() || out.size() > Elements() - first) {
    throw std::out_of_range("tensor \"" + name + "\": elements beyond its end");
  }
  const std::byte* from = bytes.data() + first * DTypeSize(dtype);
  switch (dtype) {
    case DType::kF32:
      if (!out.empty()) std::memcpy(out.data(), from, out.size_bytes());
      return;
    case DType::kBF16:
      return ConvertTo<uint16_t>(from, out, BF16ToFloat);
    case DType::kF16:
      return ConvertTo<uint16_t>(from, out, F16ToFloat);
    case DType::kF64:
      return ConvertTo<double>(from, out, [](double x) { return static_cast<float>(x); });
    default:
      throw InputError((file.empty() ? "" : file + ": ") + "tensor \"" + name + "\": holds " +
                       std::string(DTypeName(dtype)) + ", where F32, BF16, F16 or F64 is expected");
  }
}

std::optional<uint64_t> FindNonFinite(const TensorView& tensor) {
  constexpr uint64_t kStep = 4096;
  float part[kStep];
  for (uint64_t begin = 0; begin < tensor.Elements(); begin += kStep) {
    const uint64_t count = std::min(kStep, tensor.Elements() - begin);
    tensor.ReadFloats(begin, {part, static_cast<size_t>(count)});
    // x - x is 0 for finite values and NaN for all others; the sum shows whether a search is
    // needed.
    float sum = 0.0f;
    for (uint64_t i = 0; i < count; ++i) sum += part[i] - part[i];
    if (sum == 0.0f) continue;
    for (uint64_t i = 0; i < count; ++i) {
      if (!std::isfinite(part[i])) return begin + i;
    }
  }
  return std::nullopt;
}

}  // namespace lanewise::model
