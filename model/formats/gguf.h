// GGUF version 3, the file of llama.cpp: a llama with its tokenizer.
// Source: github.com/ggml-org/ggml/blob/master/docs/gguf.md.
#ifndef LANEWISE_MODEL_FORMATS_GGUF_H_
#define LANEWISE_MODEL_FORMATS_GGUF_H_

#include <string>

#include "model/formats/model_file.h"

namespace lanewise::model {

// Writes the file atomically, and its folder where that is missing: matrices as float32 or bf16,
// norms as float32. UsageError for models that are no llama, and for tokenizers that llama.cpp has
// nothing like (word). Without a tokenizer the file has none.
void WriteGguf(FileSystem& files, const std::string& path, const ModelFile& model, bool bf16);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_FORMATS_GGUF_H_
