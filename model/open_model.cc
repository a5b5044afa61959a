#include <algorithm>
#include <memory>
#include <utility>

#include "model/checkpoint.h"
#include "model/error.h"
#include "model/formats/llama2c.h"
#include "model/formats/seed_rnn.h"
#include "model/model.h"
#include "model/tokenizer.h"

namespace lanewise::model {
namespace {

constexpr const char* kPossible =
    "a MODEL is a run folder, a checkpoint folder, a .safetensors file with config.json beside it, "
    "a seed file (lrnnC01, lrnnC02) or a llama2.c file";

ModelFile FromCheckpoint(Checkpoint checkpoint) {
  ModelFile model;
  model.path = checkpoint.folder;
  model.format = "safetensors";
  model.config = std::move(checkpoint.config);
  model.tokenizer = std::move(checkpoint.tokenizer);
  model.owner = checkpoint.weights.owner();
  for (const TensorView& tensor : checkpoint.weights.tensors()) {
    model.tensors.push_back(MakeNamedTensor(tensor, model.owner));
  }
  return model;
}

ModelFile OpenModelFile(FileSystem& files, const std::string& path) {
  MappedFile file(files, path);
  if (file.bytes().empty()) throw InputError(path + ": is empty; " + kPossible);
  if (IsSeedRnn(file.bytes())) return ParseSeedRnn(std::move(file));
  if (!IsLlama2c(file.bytes())) {
    if (path.ends_with(".bin") && file.bytes().size() >= 28) {
      // Its fields may say what is wrong; what is no such file at all fails at the first of them.
      return ParseLlama2c(std::move(file));
    }
    throw InputError(path + ": no model file; " + kPossible);
  }
  ModelFile model = ParseLlama2c(std::move(file));
  const std::string tokenizer = JoinPath(ParentPath(path), "tokenizer.bin");
  if (!IsFile(files, tokenizer)) return model;
  const auto vocab = model.config["vocab_size"].get<uint64_t>();
  try {
    model.tokenizer = ReadLlama2cTokenizer(files, tokenizer, vocab);
  } catch (const InputError& error) {
    // The file does not say whose it is.
    throw InputError(std::string(error.what()) + "; it is read as the tokenizer of " + path +
                     ", which has " + std::to_string(vocab) +
                     " tokens: if it belongs to another model, move it away");
  }
  return model;
}

// The best checkpoint of a run folder; nothing where it is none.
std::optional<std::string> BestCheckpoint(FileSystem& files, const std::string& folder) {
  const auto best = CheckpointStore(files, folder, 1).Best();
  return best ? std::optional(best->folder) : std::nullopt;
}

// A tokenizer that gives ids beyond the embeddings would read past them.
void CheckTokenizer(const ModelFile& file, size_t vocab) {
  if (file.tokenizer.is_null()) return;
  const int32_t size = MakeTokenizer(file.tokenizer, file.path + ": tokenizer")->vocab_size();
  if (static_cast<size_t>(size) > vocab) {
    throw InputError(file.path + ": the tokenizer has " + std::to_string(size) +
                     " entries and the model " + std::to_string(vocab));
  }
}

// Sizes, tokenizer and tensors have to fit together. Afterwards the configuration has exactly the
// fields of its model, which callers read without another look, and "training".
void Check(ModelFile* file) {
  const std::unique_ptr<Model> model = MakeModel(file->config, file->path);
  CheckTokenizer(*file, model->vocab_size());
  CheckWeights(*file, model->params());
  Json config = model->Config();
  const auto training = file->config.find("training");
  if (training != file->config.end()) config["training"] = std::move(*training);
  file->config = std::move(config);
}

// Whether the folder is a run or a model.
bool HoldsModel(FileSystem& files, const std::string& folder) {
  return IsDirectory(files, JoinPath(folder, "checkpoints")) ||
         (IsFile(files, JoinPath(folder, "config.json")) &&
          IsFile(files, JoinPath(folder, "model.safetensors")));
}

// Whether it is a seed or llama2.c file; those of others may end in .bin, too.
bool IsModelFile(FileSystem& files, const std::string& path) {
  if (!path.ends_with(".bin") || !IsFile(files, path)) return false;
  const MappedFile file(files, path);
  return IsSeedRnn(file.bytes()) || IsLlama2c(file.bytes());
}

// What a folder that is no model has to do with one.
std::string WhereModelsAre(FileSystem& files, const std::string& path) {
  if (IsFile(files, JoinPath(path, "LATEST"))) {
    return "these are a run's checkpoints; name the run, or one of them: " +
           JoinPath(path, "step-...");
  }
  constexpr size_t kMost = 4;
  std::string found;
  size_t count = 0;
  for (const std::string& name : ListDirectory(files, path)) {
    const std::string inside = JoinPath(path, name);
    const bool model =
        IsDirectory(files, inside) ? HoldsModel(files, inside) : IsModelFile(files, inside);
    if (model && ++count <= kMost) found += (found.empty() ? "" : ", ") + inside;
  }
  if (count == 0) return "";
  return "there are models in it; name one of them: " + found + (count > kMost ? ", ..." : "");
}

}  // namespace

std::string ResolveModel(FileSystem& files, const std::string& path) {
  const FileInfo info = GetInfo(files, path);
  if (info.kind == FileInfo::Kind::kMissing) {
    throw InputError(path + ": no such file or folder; " + kPossible);
  }
  if (info.kind != FileInfo::Kind::kDirectory) return path;
  if (const auto best = BestCheckpoint(files, path)) return *best;
  if (IsFile(files, JoinPath(path, "config.json")) &&
      IsFile(files, JoinPath(path, "model.safetensors"))) {
    return path;
  }
  const std::string where = WhereModelsAre(files, path);
  throw InputError(path +
                   ": holds no checkpoint and no model (config.json and model.safetensors); " +
                   (where.empty() ? kPossible : where));
}

ModelFile OpenModel(FileSystem& files, const std::string& path) {
  const std::string found = ResolveModel(files, path);
  ModelFile model;
  if (IsDirectory(files, found)) {
    model = FromCheckpoint(LoadModelFiles(files, JoinPath(found, "model.safetensors")));
  } else if (BaseName(found) == "train_state.safetensors") {
    throw InputError(path + ": holds the state of a training, not a model; name its folder: " +
                     ParentPath(found));
  } else if (found.ends_with(".safetensors")) {
    model = FromCheckpoint(LoadModelFiles(files, found));
  } else {
    model = OpenModelFile(files, found);
  }
  Check(&model);
  return model;
}

}  // namespace lanewise::model
