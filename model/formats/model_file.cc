#include "model/formats/model_file.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "kernels/bfloat16.h"
#include "runtime/check.h"

namespace lanewise::model {

uint64_t NamedTensor::Elements() const {
  const std::optional<uint64_t> elements = CheckedElements(shape);
  LW_CHECK(elements.has_value(), name, ": more elements than can be counted");
  return *elements;
}

std::vector<float> NamedTensor::Values() const {
  std::vector<float> values(static_cast<size_t>(Elements()));
  read(0, values);
  return values;
}

const NamedTensor* ModelFile::Find(std::string_view name) const {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const NamedTensor& tensor) { return tensor.name == name; });
  return found == tensors.end() ? nullptr : &*found;
}

NamedTensor MakeNamedTensor(TensorView view, std::shared_ptr<const void> owner) {
  NamedTensor tensor;
  tensor.name = view.name;
  tensor.shape = view.shape;
  tensor.read = [view = std::move(view), owner = std::move(owner)](
                    uint64_t first, std::span<float> out) { view.ReadFloats(first, out); };
  return tensor;
}

TensorSource MakeSource(const NamedTensor& tensor, bool bf16) {
  const auto produce = [tensor, bf16](const ByteSink& sink) {
    float part[4096];
    kernels::BFloat16 rounded[std::size(part)];
    const uint64_t elements = tensor.Elements();
    for (uint64_t first = 0; first < elements; first += std::size(part)) {
      const auto count = static_cast<size_t>(std::min<uint64_t>(std::size(part), elements - first));
      const std::span<float> values(part, count);
      tensor.read(first, values);
      if (bf16) kernels::RoundToBFloat16(values, rounded);
      sink(bf16 ? std::as_bytes(std::span(rounded, count)) : std::as_bytes(values));
    }
  };
  return {tensor.name, bf16 ? DType::kBF16 : DType::kF32, tensor.shape, produce};
}

}  // namespace lanewise::model
