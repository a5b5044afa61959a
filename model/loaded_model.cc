#include "model/loaded_model.h"

#include "model/checkpoint.h"
#include "model/checksum.h"
#include "model/error.h"

namespace lanewise::model {

void ThrowNoTokenizer(const ModelFile& file, const std::string& otherwise) {
  const bool folder = file.format == "safetensors";
  throw InputError(file.path + ": has no tokenizer; put the model's " +
                   (folder ? "tokenizer.json in it" : "tokenizer.bin beside it") + otherwise);
}

const Tokenizer& LoadedModel::RequireTokenizer(const std::string& otherwise) const {
  if (tokenizer) return *tokenizer;
  ThrowNoTokenizer(file, otherwise);
}

uint64_t LoadedModel::Hash() const {
  ChecksumStream stream;
  Json config = model->Config();
  const std::string text = config.dump();
  stream.Update(std::as_bytes(std::span(text)));
  const auto update = [&](const Param& param, const auto* buffer) {
    const auto values = param.In(buffer);
    for (size_t r = 0; r < values.rows; ++r) stream.Update(std::as_bytes(values.RowSpan(r)));
  };
  for (const Param& param : model->params().params()) {
    if (weights().half != nullptr && !param.is_vector) {
      update(param, weights().half);
    } else {
      update(param, weights().full);
    }
  }
  return stream.Digest();
}

LoadedModel LoadModel(FileSystem& files, const std::string& path, bool half_weights) {
  LoadedModel loaded;
  loaded.file = OpenModel(files, path);
  loaded.model = MakeModel(loaded.file.config, loaded.file.path);
  if (!loaded.file.tokenizer.is_null()) {
    loaded.tokenizer = MakeTokenizer(loaded.file.tokenizer, loaded.file.path + ": tokenizer");
  }
  // The tensors were found to be of these sizes: no memory is taken for what a configuration
  // claims.
  const ParamSet& params = loaded.model->params();
  loaded.memory = runtime::Arena("the model's weights", params.buffer_size() * sizeof(float));
  if (half_weights) {
    // The pages of the float32 buffer that only matrices would fill are never touched.
    loaded.half = runtime::Arena("the model's bf16 weights",
                                 params.buffer_size() * sizeof(kernels::BFloat16));
  }
  LoadWeights(loaded.file, params, loaded.memory.Floats(), loaded.half.As<kernels::BFloat16>());
  loaded.file.tensors.clear();
  loaded.file.owner.reset();
  return loaded;
}

}  // namespace lanewise::model
