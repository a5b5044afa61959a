// MANIFEST.json: what a checkpoint folder holds. Written last, so that a folder with a manifest is
// a whole one.
#ifndef LANEWISE_MODEL_MANIFEST_H_
#define LANEWISE_MODEL_MANIFEST_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "model/file.h"

namespace lanewise::model {

inline constexpr const char* kManifestFile = "MANIFEST.json";

struct Manifest {
  struct Entry {
    uint64_t bytes = 0;
    std::string xxh3;
  };
  uint64_t step = 0;
  std::optional<double> val_loss;
  std::map<std::string, Entry> files;
};

// The text has a checksum of its own.
std::string ManifestText(const Manifest& manifest);
// InputError where the file is not as ManifestText made it.
Manifest ReadManifest(FileSystem& files, const std::string& folder);
// Compares every listed file with its size and checksum. InputError names the file and, where one
// tensor is to blame, the tensor.
void VerifyManifest(FileSystem& files, const std::string& folder, const Manifest& manifest);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_MANIFEST_H_
