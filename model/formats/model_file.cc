#include "model/formats/model_file.h"

#include <algorithm>
#include <utility>

namespace lanewise::model {

uint64_t NamedTensor::Elements() const { return CheckedElements(shape).value(); }

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

TensorSource MakeSource(const NamedTensor& tensor) {
  return {tensor.name, DType::kF32, tensor.shape, [tensor](const ByteSink& sink) {
            float part[4096];
            const uint64_t elements = tensor.Elements();
            for (uint64_t first = 0; first < elements; first += std::size(part)) {
              const auto count = std::min<uint64_t>(std::size(part), elements - first);
              const std::span<float> values(part, static_cast<size_t>(count));
              tensor.read(first, values);
              sink(std::as_bytes(values));
            }
          }};
}

}  // namespace lanewise::model
