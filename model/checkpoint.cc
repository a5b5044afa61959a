#include "model/checkpoint.h"

#include <cerrno>
#include <utility>

#include "model/checksum.h"
#include "model/error.h"
#include "model/manifest.h"

namespace lanewise::model {
namespace {

constexpr const char* kConfigFile = "config.json";
constexpr const char* kTokenizerFile = "tokenizer.json";
constexpr const char* kWeightsFile = "model.safetensors";
constexpr const char* kTrainStateFile = "train_state.safetensors";
constexpr const char* kTrainStateKey = "train_state";

// The files of a checkpoint before they are written.
struct Contents {
  std::string config;
  std::string tokenizer;
  StringMap weights_metadata;
  StringMap train_metadata;
  uint64_t bytes = 0;
};

Contents MakeContents(const CheckpointContent& content, const std::string& folder) {
  Contents result;
  // Names of texts may be no UTF-8, which JSON has to be; --resume then asks where the text is.
  result.config = content.config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  result.tokenizer = content.tokenizer.dump() + "\n";
  if (result.tokenizer.size() > kMaxJsonFileBytes) {
    throw InputError(JoinPath(folder, kTokenizerFile) + ": would take " +
                     FormatBytes(result.tokenizer.size()) + "; at most " +
                     FormatBytes(kMaxJsonFileBytes) + " are read of such a file");
  }
  // Other programs read the weights as PyTorch's.
  result.weights_metadata["format"] = "pt";
  result.bytes = result.config.size() + result.tokenizer.size() +
                 SafetensorsSize(content.weights, result.weights_metadata) + 4096;
  if (!content.train_state.is_null()) {
    result.train_metadata[kTrainStateKey] = content.train_state.dump();
    result.bytes += SafetensorsSize(content.train_tensors, result.train_metadata);
  }
  return result;
}

// Writes and syncs a file in the folder and lists it.
void WriteText(FileSystem& files, const std::string& folder, const std::string& name,
               const std::string& text, Manifest* manifest) {
  File file(files, JoinPath(folder, name), OpenMode::kWrite);
  file.Write(text);
  file.Sync();
  file.Close();
  if (manifest == nullptr) return;
  manifest->files[name] = {text.size(), ChecksumText(Checksum(std::as_bytes(std::span(text))))};
}

void WriteTensors(FileSystem& files, const std::string& folder, const std::string& name,
                  const std::vector<TensorSource>& tensors, const StringMap& metadata,
                  Manifest* manifest) {
  const uint64_t checksum = WriteSafetensors(files, JoinPath(folder, name), tensors, metadata);
  manifest->files[name] = {SafetensorsSize(tensors, metadata), ChecksumText(checksum)};
}

void WriteFolder(FileSystem& files, const std::string& folder, const CheckpointContent& content,
                 const Contents& contents, uint64_t step, std::optional<double> val_loss) {
  MakeDirectories(files, folder);
  Manifest manifest{step, val_loss, {}};
  WriteText(files, folder, kConfigFile, contents.config, &manifest);
  WriteText(files, folder, kTokenizerFile, contents.tokenizer, &manifest);
  WriteTensors(files, folder, kWeightsFile, content.weights, contents.weights_metadata, &manifest);
  if (!content.train_state.is_null()) {
    WriteTensors(files, folder, kTrainStateFile, content.train_tensors, contents.train_metadata,
                 &manifest);
  }
  WriteText(files, folder, kManifestFile, ManifestText(manifest), nullptr);
  SyncDirectory(files, folder);
}

void RemoveQuietly(FileSystem& files, const std::string& path) {
  try {
    RemoveTree(files, path);
  } catch (const Error&) {
    // The next save tries again; what matters is the error that led here.
  }
}

void CheckFinite(const SafetensorsFile& file) {
  for (const TensorView& tensor : file.tensors()) {
    if (const auto bad = FindNonFinite(tensor)) {
      throw InputError(file.path() + ": tensor \"" + tensor.name + "\": entry " +
                       std::to_string(*bad) + " is NaN or infinite");
    }
  }
}

Checkpoint Load(FileSystem& files, const std::string& weights_path, bool with_training) {
  const std::string folder = ParentPath(weights_path);
  Checkpoint checkpoint;
  checkpoint.folder = folder;
  const auto path = [&](const char* name) { return JoinPath(folder, name); };
  // It may be deleted to save space.
  with_training = with_training && IsFile(files, path(kTrainStateFile));
  if (IsFile(files, path(kManifestFile))) {
    Manifest manifest = ReadManifest(files, folder);
    for (const char* name : {kConfigFile, kTokenizerFile, kWeightsFile}) {
      if (!manifest.files.contains(name)) {
        throw InputError(path(kManifestFile) + ": does not list " + name);
      }
    }
    if (!with_training) manifest.files.erase(kTrainStateFile);
    VerifyManifest(files, folder, manifest);
    checkpoint.step = manifest.step;
    checkpoint.val_loss = manifest.val_loss;
  }
  checkpoint.config = ReadJsonFile(files, path(kConfigFile));
  if (!checkpoint.config.is_object()) {
    throw InputError(path(kConfigFile) + ": is no JSON object");
  }
  if (IsFile(files, path(kTokenizerFile))) {
    checkpoint.tokenizer = ReadJsonFile(files, path(kTokenizerFile));
  }
  checkpoint.weights = SafetensorsFile::Open(files, weights_path);
  checkpoint.weights.Verify();
  CheckFinite(checkpoint.weights);
  if (with_training) {
    checkpoint.train_tensors = SafetensorsFile::Open(files, path(kTrainStateFile));
    checkpoint.train_tensors.Verify();
    const StringMap& metadata = checkpoint.train_tensors.metadata();
    const auto state = metadata.find(kTrainStateKey);
    if (state == metadata.end()) {
      throw InputError(path(kTrainStateFile) + ": __metadata__ has no \"train_state\"");
    }
    checkpoint.train_state = ParseJson(state->second, path(kTrainStateFile) + ": train_state");
  }
  return checkpoint;
}

}  // namespace

void SaveModelFolder(FileSystem& files, const std::string& folder, const CheckpointContent& content,
                     uint64_t step, std::optional<double> val_loss) {
  const std::string parent = ParentPath(folder);
  const std::string temporary = JoinPath(parent, ".tmp-" + BaseName(folder));
  if (GetInfo(files, folder).kind != FileInfo::Kind::kMissing) {
    throw IoError(folder + ": exists already; choose another name", EEXIST);
  }
  const Contents contents = MakeContents(content, folder);
  MakeDirectories(files, parent);
  RemoveTree(files, temporary);
  RequireFreeSpace(files, parent, contents.bytes);
  try {
    WriteFolder(files, temporary, content, contents, step, val_loss);
    RenameFile(files, temporary, folder);
  } catch (const IoError& error) {
    RemoveQuietly(files, temporary);
    if (!IsDiskFull(error.error_number())) throw;
    throw IoError(
        std::string(error.what()) + "; this checkpoint needs " + FormatBytes(contents.bytes),
        error.error_number());
  } catch (...) {
    RemoveQuietly(files, temporary);
    throw;
  }
  SyncDirectory(files, parent);
}

Checkpoint LoadCheckpoint(FileSystem& files, const std::string& folder) {
  return Load(files, JoinPath(folder, kWeightsFile), /*with_training=*/true);
}

Checkpoint LoadModelFiles(FileSystem& files, const std::string& weights_path) {
  return Load(files, weights_path, /*with_training=*/false);
}

}  // namespace lanewise::model
