// Run folders: checkpoints that are saved durably, verified when they are loaded, and found again.
//
//   RUN/checkpoints/step-000500/{config.json, tokenizer.json, model.safetensors,
//                                train_state.safetensors, MANIFEST.json}
//   RUN/checkpoints/LATEST, BEST                    names of folders, for people and scripts
//   RUN/{config.json, tokenizer.json}               copies of the best checkpoint's
//   RUN/model.safetensors                           a hard link to the best checkpoint's
//   RUN/.lock                                       held by the process that trains here
//
// A folder named step-N is complete: it is written as .tmp-step-N, synced and then renamed. So the
// latest checkpoint is the highest step that has a manifest, and the best the one whose manifest
// has the lowest validation loss; LATEST and BEST only say so.
#ifndef LANEWISE_MODEL_CHECKPOINT_H_
#define LANEWISE_MODEL_CHECKPOINT_H_

#include <optional>
#include <string>
#include <vector>

#include "model/file.h"
#include "model/formats/model_file.h"
#include "model/formats/safetensors.h"
#include "model/json.h"

namespace lanewise::model {

// What a checkpoint holds. train_tensors and train_state (step, data position, random keys, …) may
// be empty: then there is no train_state.safetensors and the checkpoint cannot be resumed.
struct CheckpointContent {
  Json config;
  Json tokenizer;
  std::vector<TensorSource> weights;
  std::vector<TensorSource> train_tensors;
  Json train_state;
};

struct Checkpoint {
  std::string folder;
  uint64_t step = 0;
  std::optional<double> val_loss;
  Json config;
  Json tokenizer;
  SafetensorsFile weights;
  SafetensorsFile train_tensors;  // empty where there is no training state
  Json train_state;               // null where there is none

  bool can_resume() const { return !train_state.is_null(); }
};

struct CheckpointInfo {
  std::string folder;
  uint64_t step = 0;
  std::optional<double> val_loss;
};

// Writes a model folder (config.json, tokenizer.json, model.safetensors, MANIFEST.json and, if
// there is one, train_state.safetensors) that must not exist yet: under a temporary name, synced,
// renamed.
void SaveModelFolder(FileSystem& files, const std::string& folder, const CheckpointContent& content,
                     uint64_t step, std::optional<double> val_loss);

// Reads a model folder. With a manifest, every file must have its checksum: InputError names the
// file and, where it is a tensor that is wrong, the tensor. Weights must be finite. Only the state
// of the training may be missing.
Checkpoint LoadCheckpoint(FileSystem& files, const std::string& folder);
// The same of a .safetensors file of any name in a model folder, but without what only training
// needs: the state of the training, twice as large, is neither read nor missed.
Checkpoint LoadModelFiles(FileSystem& files, const std::string& weights_path);

// The checkpoints of one run. Creates nothing until the first save.
class CheckpointStore {
 public:
  // Keeps the newest `keep` (at least 1) and the best.
  CheckpointStore(FileSystem& files, std::string run_folder, size_t keep);

  // Saves, renews LATEST, BEST and the links in the run folder, then removes what need not be kept
  // and what an earlier, interrupted save left. Free space is checked before anything is written.
  // On an error everything that was there before still loads, and the exception says what failed.
  // Returns the folder of the checkpoint.
  std::string Save(uint64_t step, const CheckpointContent& content, std::optional<double> val_loss);

  // Does what a save that was interrupted after its checkpoint was complete has left undone.
  void Repair();

  // By step; only complete ones. InputError says what to delete where the newest has a manifest
  // that cannot be read; an older one is left out.
  std::vector<CheckpointInfo> List() const;
  std::optional<CheckpointInfo> Latest() const;
  std::optional<CheckpointInfo> Best() const;  // the latest where none has a validation loss

 private:
  void PublishAndPrune() const;
  void Prune(const std::vector<CheckpointInfo>& all) const;
  void Publish(const CheckpointInfo& best) const;

  FileSystem& files_;
  std::string run_;
  std::string folder_;
  size_t keep_;
};

// Holds RUN/.lock. LockedError names the process that has it.
class RunLock {
 public:
  RunLock(FileSystem& files, const std::string& run_folder);

 private:
  File file_;
};

// Opens any MODEL argument: a run folder (its best checkpoint, else the latest), a checkpoint
// folder, a .safetensors file with its config.json beside it, a seed file or a llama2.c file (with
// tokenizer.bin beside it, if there is one). Everything is verified: sizes, tokenizer and tensors
// fit together. InputError says what was found instead.
ModelFile OpenModel(FileSystem& files, const std::string& path);

// The folder that OpenModel reads for a run or checkpoint folder; `path` itself for files.
std::string ResolveModel(FileSystem& files, const std::string& path);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_CHECKPOINT_H_
