#include "model/model.h"

#include <cmath>

#include "kernels/bfloat16.h"
#include "model/error.h"
#include "model/llama/llama.h"
#include "model/slot_rnn/slot_rnn.h"
#include "runtime/check.h"

namespace lanewise::model {

std::unique_ptr<Model> MakeModel(const Json& config, const std::string& where) {
  const std::string kind = GetString(config, "model", where);
  if (kind == "slot_rnn") return std::make_unique<SlotRnn>(SlotRnnConfig::FromJson(config, where));
  if (kind == "llama") return std::make_unique<Llama>(LlamaConfig::FromJson(config, where));
  throw InputError(where + ": \"model\" is \"" + kind + "\"; known are slot_rnn and llama");
}

void CheckWeights(const ModelFile& file, const ParamSet& params) {
  for (const Param& p : params.params()) {
    const NamedTensor* tensor = file.Find(p.name);
    if (tensor == nullptr) throw InputError(file.path + ": tensor \"" + p.name + "\" is missing");
    const std::vector<size_t> shape = p.Shape();
    // A vector may also be stored as [n, 1], as the seed's files do.
    const bool same =
        std::equal(shape.begin(), shape.end(), tensor->shape.begin(), tensor->shape.end());
    const bool column = p.is_vector && tensor->shape == Shape{p.cols, 1};
    if (!same && !column) {
      throw InputError(runtime::StrCat(
          file.path, ": tensor \"", p.name, "\" is ", ShapeText(tensor->shape),
          ", the sizes in the configuration make it ", ShapeText({shape.begin(), shape.end()})));
    }
  }
  if (file.tensors.size() == params.params().size()) return;
  for (const NamedTensor& tensor : file.tensors) {
    if (params.Find(tensor.name) != nullptr) continue;
    throw InputError(file.path + ": tensor \"" + tensor.name +
                     "\" is none of a model with the sizes in the configuration");
  }
}

void LoadWeights(const ModelFile& file, const ParamSet& params, std::span<float> weights,
                 std::span<kernels::BFloat16> half) {
  LW_CHECK(weights.size() >= params.buffer_size(), "weights: buffer too small");
  CheckWeights(file, params);
  for (const Param& p : params.params()) {
    const NamedTensor* tensor = file.Find(p.name);
    const bool rounded = !half.empty() && !p.is_vector;
    std::vector<float> staged(rounded ? p.cols : 0);
    for (size_t r = 0; r < p.rows; ++r) {
      const std::span<float> row = rounded ? std::span(staged) : p.In(weights.data()).RowSpan(r);
      tensor->read(r * p.cols, row);
      for (float value : row) {
        if (!std::isfinite(value)) {
          throw InputError(file.path + ": tensor \"" + p.name + "\" holds NaN or infinity");
        }
      }
      if (rounded) kernels::RoundToBFloat16(row, p.In(half.data()).RowSpan(r));
    }
  }
}

std::vector<TensorSource> WeightSources(const ParamSet& params, const float* buffer,
                                        const std::string& prefix) {
  std::vector<TensorSource> sources;
  for (const Param& p : params.params()) {
    TensorSource source =
        MakeStridedSource(prefix + p.name, buffer + p.offset, p.rows, p.cols, p.stride);
    const std::vector<size_t> shape = p.Shape();
    source.shape.assign(shape.begin(), shape.end());
    sources.push_back(std::move(source));
  }
  return sources;
}

}  // namespace lanewise::model
