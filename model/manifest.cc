#include "model/manifest.h"

#include <cmath>

#include "model/checksum.h"
#include "model/error.h"
#include "model/formats/safetensors.h"
#include "model/json.h"
#include "runtime/check.h"

namespace lanewise::model {
namespace {

constexpr const char* kFormat = "lanewise-checkpoint";
constexpr int64_t kVersion = 1;

std::string TextChecksum(const std::string& text) {
  return ChecksumText(Checksum(std::as_bytes(std::span(text))));
}

}  // namespace

std::string ManifestText(const Manifest& manifest) {
  Json json = {{"format", kFormat}, {"version", kVersion}, {"step", manifest.step}};
  json["val_loss"] = nullptr;
  if (manifest.val_loss && std::isfinite(*manifest.val_loss)) json["val_loss"] = *manifest.val_loss;
  json["files"] = Json::object();
  for (const auto& [name, entry] : manifest.files) {
    json["files"][name] = {{"bytes", entry.bytes}, {"xxh3", entry.xxh3}};
  }
  json["checksum"] = TextChecksum(json.dump());
  return json.dump(2) + "\n";
}

Manifest ReadManifest(FileSystem& files, const std::string& folder) {
  const std::string path = JoinPath(folder, kManifestFile);
  Json json = ReadJsonFile(files, path);
  const std::string format = GetString(json, "format", path);
  if (format != kFormat) throw InputError(path + ": \"format\" is not " + kFormat);
  const int64_t version = GetInteger(json, "version", 1, INT64_MAX, path);
  if (version > kVersion) {
    throw InputError(path + ": version " + std::to_string(version) +
                     " is newer than this program; use a newer one");
  }
  const std::string checksum = GetString(json, "checksum", path);
  json.erase("checksum");
  if (TextChecksum(json.dump()) != checksum) {
    throw InputError(path + ": does not have its checksum; the file is corrupt");
  }
  Manifest manifest;
  manifest.step = static_cast<uint64_t>(GetInteger(json, "step", 0, INT64_MAX, path));
  if (json.contains("val_loss") && !json["val_loss"].is_null()) {
    manifest.val_loss = GetNumber(json, "val_loss", path);
  }
  if (!json.contains("files") || !json["files"].is_object()) {
    throw InputError(path + ": \"files\" is missing");
  }
  for (const auto& [name, entry] : json["files"].items()) {
    if (name.empty() || name.find_first_of("/\\") != std::string::npos || name[0] == '.') {
      throw InputError(
          runtime::StrCat(path, ": \"files\": \"", name, "\" is no file of this folder"));
    }
    manifest.files[name] = {static_cast<uint64_t>(GetInteger(entry, "bytes", 0, INT64_MAX, path)),
                            GetString(entry, "xxh3", path)};
  }
  return manifest;
}

void VerifyManifest(FileSystem& files, const std::string& folder, const Manifest& manifest) {
  for (const auto& [name, entry] : manifest.files) {
    const std::string path = JoinPath(folder, name);
    if (!IsFile(files, path)) {
      throw InputError(path + ": is missing, though " + kManifestFile + " lists it");
    }
    const MappedFile file(files, path);
    if (file.bytes().size() == entry.bytes && ChecksumText(Checksum(file.bytes())) == entry.xxh3) {
      continue;
    }
    if (name.ends_with(".safetensors")) SafetensorsFile::Parse(file.bytes(), path).Verify();
    if (file.bytes().size() != entry.bytes) {
      throw InputError(path + ": " + std::to_string(file.bytes().size()) + " bytes where " +
                       kManifestFile + " says " + std::to_string(entry.bytes));
    }
    throw InputError(path + ": does not have the checksum in " + kManifestFile +
                     "; the file is corrupt");
  }
}

}  // namespace lanewise::model
