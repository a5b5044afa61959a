// The seed program's model files: lrnnC01 and lrnnC02, little-endian.
#ifndef LANEWISE_MODEL_FORMATS_SEED_RNN_H_
#define LANEWISE_MODEL_FORMATS_SEED_RNN_H_

#include <string>

#include "model/formats/model_file.h"

namespace lanewise::model {

// True where the first bytes are those of such a file.
bool IsSeedRnn(std::span<const std::byte> bytes);

// Reads either version. InputError names file, offset and field for anything that does not fit:
// every count is checked against the bytes that remain, shapes against the sizes, values must be
// finite, and nothing may follow the last tensor.
ModelFile ReadSeedRnn(FileSystem& files, const std::string& path);
ModelFile ParseSeedRnn(MappedFile file);

// Writes lrnnC02, atomically; its folder is made once nothing is left to refuse. The tokenizer must
// be one of bytes or words (byte, char, seed-char, word, seed-word); see model/formats/README.md
// for what the seed program makes of new tokenizers. UsageError for models that the format cannot
// hold.
void WriteSeedRnn(FileSystem& files, const std::string& path, const ModelFile& model);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_FORMATS_SEED_RNN_H_
