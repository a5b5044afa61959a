#include "model/loaded_model.h"

#include "model/checkpoint.h"
#include "model/checksum.h"
#include "model/error.h"

namespace lanewise::model {

const Tokenizer& LoadedModel::RequireTokenizer() const {
  if (tokenizer) return *tokenizer;
  throw InputError(file.path +
                   ": has no tokenizer; put the model's tokenizer.bin beside it, or work on token "
                   "ids (--token-ids)");
}

uint64_t LoadedModel::Hash() const {
  ChecksumStream stream;
  Json config = model->Config();
  const std::string text = config.dump();
  stream.Update(std::as_bytes(std::span(text)));
  for (const Param& param : model->params().params()) {
    const Mat<const float> values = param.In(weights());
    for (size_t r = 0; r < values.rows; ++r) stream.Update(std::as_bytes(values.RowSpan(r)));
  }
  return stream.Digest();
}

LoadedModel LoadModel(FileSystem& files, const std::string& path) {
  LoadedModel loaded;
  loaded.file = OpenModel(files, path);
  loaded.model = MakeModel(loaded.file.config, loaded.file.path);
  if (!loaded.file.tokenizer.is_null()) {
    loaded.tokenizer = MakeTokenizer(loaded.file.tokenizer, loaded.file.path + ": tokenizer");
  }
  const ParamSet& params = loaded.model->params();
  loaded.memory = runtime::Arena("the model's weights", params.buffer_size() * sizeof(float));
  LoadWeights(loaded.file, params, loaded.memory.Floats());
  loaded.file.tensors.clear();
  loaded.file.owner.reset();
  return loaded;
}

}  // namespace lanewise::model
