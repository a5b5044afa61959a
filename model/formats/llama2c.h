// llama2.c's model files (versions 0, 1 and 2) and its tokenizer.bin, little-endian.
#ifndef LANEWISE_MODEL_FORMATS_LLAMA2C_H_
#define LANEWISE_MODEL_FORMATS_LLAMA2C_H_

#include <string>

#include "model/formats/model_file.h"

namespace lanewise::model {

// True for version 1 and 2's magic, and for a version 0 header whose sizes give the file's length.
bool IsLlama2c(std::span<const std::byte> bytes);

// Reads any version; version 2's int8 groups come out as float32. InputError names file, offset and
// field. `tokenizer` is null: it is in a file of its own.
ModelFile ReadLlama2c(FileSystem& files, const std::string& path);
ModelFile ParseLlama2c(MappedFile file);

// Writes version 0 or 1, atomically; its folder is made once nothing is left to refuse.
void WriteLlama2c(FileSystem& files, const std::string& path, const ModelFile& model, int version);

// Reads tokenizer.bin; the number of tokens is the model's vocabulary size. Gives what
// MakeTokenizer takes.
Json ReadLlama2cTokenizer(FileSystem& files, const std::string& path, uint64_t vocab_size);
Json ParseLlama2cTokenizer(std::span<const std::byte> bytes, const std::string& where,
                           uint64_t vocab_size);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_FORMATS_LLAMA2C_H_
