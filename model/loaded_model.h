// A model that is ready to run: its file, its graph, its tokenizer and its weights in memory.
#ifndef LANEWISE_MODEL_LOADED_MODEL_H_
#define LANEWISE_MODEL_LOADED_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "model/file.h"
#include "model/formats/model_file.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "runtime/arena.h"

namespace lanewise::model {

// InputError about a model without a tokenizer that says what to do about it; `otherwise` is
// another way that the caller has.
[[noreturn]] void ThrowNoTokenizer(const ModelFile& file, const std::string& otherwise = "");

struct LoadedModel {
  ModelFile file;  // without its tensors and the mapping: the weights are in `memory`
  std::unique_ptr<Model> model;
  std::unique_ptr<Tokenizer> tokenizer;  // nullptr where the file has none
  runtime::Arena memory;                 // float32
  runtime::Arena half;  // bf16: then the matrices are here, and `memory` has only the vectors

  runtime::Weights weights() const {
    return {memory.Floats().data(), half.As<const kernels::BFloat16>().data()};
  }
  // The tokenizer, or ThrowNoTokenizer.
  const Tokenizer& RequireTokenizer(const std::string& otherwise = "") const;
  // Of the configuration and all weights: tells whether something was made with this very model.
  uint64_t Hash() const;
};

// Opens any MODEL argument (see OpenModel) and loads it. InputError for files that are wrong,
// runtime::OutOfMemory where the weights do not fit. half_weights: matrices are rounded to bf16.
LoadedModel LoadModel(FileSystem& files, const std::string& path, bool half_weights = false);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_LOADED_MODEL_H_
