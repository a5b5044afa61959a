#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <limits>
#include <utility>

#include "model/checkpoint.h"
#include "model/error.h"
#include "model/manifest.h"

namespace lanewise::model {
namespace {

constexpr std::string_view kStepPrefix = "step-";
constexpr std::string_view kTemporaryPrefix = ".tmp-";
// A checkpoint that is being replaced by a new one of the same step.
constexpr std::string_view kOldPrefix = ".old-";

std::string StepName(uint64_t step) {
  char name[40];
  std::snprintf(name, sizeof name, "step-%06llu", static_cast<unsigned long long>(step));
  return name;
}

bool IsStepName(std::string_view name) {
  if (!name.starts_with(kStepPrefix)) return false;
  name.remove_prefix(kStepPrefix.size());
  return !name.empty() && name.size() < 20 &&
         std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

uint64_t StepOf(std::string_view step_name) {
  step_name.remove_prefix(kStepPrefix.size());
  uint64_t step = 0;
  std::from_chars(step_name.data(), step_name.data() + step_name.size(), step);
  return step;
}

// Complete checkpoints by step. One whose manifest is unreadable is passed over; InputError where
// it is the newest, unless that shall not stop the caller.
std::vector<CheckpointInfo> ListFolder(FileSystem& files, const std::string& folder,
                                       bool tolerant) {
  std::vector<CheckpointInfo> list;
  if (!IsDirectory(files, folder)) return list;
  std::optional<uint64_t> damaged;  // the newest such step
  std::string damage, damaged_path;
  const std::vector<std::string> names = ListDirectory(files, folder);
  for (const std::string& name : names) {
    const bool old = name.starts_with(kOldPrefix);
    const std::string step_name = old ? name.substr(kOldPrefix.size()) : name;
    if (!IsStepName(step_name)) continue;
    if (old && std::binary_search(names.begin(), names.end(), step_name)) continue;
    const std::string path = JoinPath(folder, name);
    if (!IsFile(files, JoinPath(path, kManifestFile))) continue;
    try {
      const Manifest manifest = ReadManifest(files, path);
      list.push_back({path, manifest.step, manifest.val_loss});
    } catch (const InputError& error) {
      if (damaged && *damaged > StepOf(step_name)) continue;
      damaged = StepOf(step_name);
      damage = error.what();
      damaged_path = path;
    }
  }
  std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  if (tolerant || !damaged) return list;
  if (list.empty()) throw InputError(damage);
  if (*damaged > list.back().step) {
    throw InputError(damage + "; delete " + damaged_path +
                     " to go on from the checkpoint before it");
  }
  return list;
}

// The checkpoint with the lowest loss, the newest if none has one.
const CheckpointInfo& BestOf(const std::vector<CheckpointInfo>& list) {
  const CheckpointInfo* best = &list.back();
  double lowest = std::numeric_limits<double>::infinity();
  for (const CheckpointInfo& info : list) {
    if (!info.val_loss || !(*info.val_loss < lowest)) continue;
    best = &info;
    lowest = *info.val_loss;
  }
  return *best;
}

// Finishes or undoes what a save that was killed left behind.
void CleanUp(FileSystem& files, const std::string& folder) {
  if (!IsDirectory(files, folder)) return;
  const std::vector<std::string> names = ListDirectory(files, folder);
  for (const std::string& name : names) {
    const std::string path = JoinPath(folder, name);
    if (name.starts_with(kTemporaryPrefix)) RemoveTree(files, path);
    if (!name.starts_with(kOldPrefix)) continue;
    const std::string step_name = name.substr(kOldPrefix.size());
    if (std::binary_search(names.begin(), names.end(), step_name)) {
      RemoveTree(files, path);
    } else {
      RenameFile(files, path, JoinPath(folder, step_name));
    }
  }
}

// Makes `link` another name of the file, or a copy where the file system has no hard links.
void LinkOrCopy(FileSystem& files, const std::string& existing, const std::string& link) {
  const std::string temporary =
      JoinPath(ParentPath(link), std::string(kTemporaryPrefix) + BaseName(link));
  files.RemoveFile(temporary);
  int64_t result = files.HardLink(existing, temporary);
  if (result == -EINTR) result = files.HardLink(existing, temporary);
  if (result >= 0) {
    RenameFile(files, temporary, link);
    // Where both are the same file already, renaming does nothing.
    files.RemoveFile(temporary);
    return;
  }
  const MappedFile source(files, existing);
  RequireFreeSpace(files, ParentPath(link), source.bytes().size());
  WriteFileAtomically(files, link, source.text());
}

}  // namespace

CheckpointStore::CheckpointStore(FileSystem& files, std::string run_folder, size_t keep)
    : files_(files),
      run_(std::move(run_folder)),
      folder_(JoinPath(run_, "checkpoints")),
      keep_(std::max<size_t>(keep, 1)) {}

std::string CheckpointStore::Save(uint64_t step, const CheckpointContent& content,
                                  std::optional<double> val_loss) {
  MakeDirectories(files_, folder_);
  CleanUp(files_, folder_);
  const std::string name = StepName(step);
  const std::string target = JoinPath(folder_, name);
  const std::string old = JoinPath(folder_, std::string(kOldPrefix) + name);
  const bool replace = GetInfo(files_, target).kind != FileInfo::Kind::kMissing;
  if (replace) {
    // ListFolder finds the old one until the new one has its place.
    RenameFile(files_, target, old);
    SyncDirectory(files_, folder_);
  }
  try {
    SaveModelFolder(files_, target, content, step, val_loss);
  } catch (...) {
    if (replace && GetInfo(files_, target).kind == FileInfo::Kind::kMissing) {
      files_.Rename(old, target);
    }
    throw;
  }
  if (replace) RemoveTree(files_, old);

  PublishAndPrune();
  return target;
}

void CheckpointStore::Repair() {
  CleanUp(files_, folder_);
  PublishAndPrune();
}

void CheckpointStore::PublishAndPrune() const {
  const std::vector<CheckpointInfo> all = ListFolder(files_, folder_, true);
  if (all.empty()) return;
  const CheckpointInfo& best = BestOf(all);
  const std::string latest = BaseName(all.back().folder);
  WriteFileAtomically(files_, JoinPath(folder_, "LATEST"), latest + "\n");
  WriteFileAtomically(files_, JoinPath(folder_, "BEST"), BaseName(best.folder) + "\n");
  Publish(best);
  Prune(all);
}

std::vector<CheckpointInfo> CheckpointStore::List() const {
  return ListFolder(files_, folder_, false);
}

std::optional<CheckpointInfo> CheckpointStore::Latest() const {
  const auto all = List();
  return all.empty() ? std::nullopt : std::optional(all.back());
}

std::optional<CheckpointInfo> CheckpointStore::Best() const {
  const std::vector<CheckpointInfo> all = List();
  return all.empty() ? std::optional<CheckpointInfo>() : BestOf(all);
}

void CheckpointStore::Publish(const CheckpointInfo& best) const {
  // People edit small files in place, which must not reach the checkpoint.
  for (const char* name : {"config.json", "tokenizer.json"}) {
    const MappedFile source(files_, JoinPath(best.folder, name));
    WriteFileAtomically(files_, JoinPath(run_, name), source.text());
  }
  LinkOrCopy(files_, JoinPath(best.folder, "model.safetensors"),
             JoinPath(run_, "model.safetensors"));
  SyncDirectory(files_, run_);
}

void CheckpointStore::Prune(const std::vector<CheckpointInfo>& all) const {
  if (all.size() <= keep_) return;
  const CheckpointInfo& best = BestOf(all);
  for (size_t i = 0; i + keep_ < all.size(); ++i) {
    if (all[i].folder == best.folder) continue;
    // A half removed checkpoint must not look like one.
    const std::string temporary =
        JoinPath(folder_, std::string(kTemporaryPrefix) + BaseName(all[i].folder));
    RenameFile(files_, all[i].folder, temporary);
    RemoveTree(files_, temporary);
  }
  SyncDirectory(files_, folder_);
}

RunLock::RunLock(FileSystem& files, const std::string& run_folder)
    : file_([&] {
        MakeDirectories(files, run_folder);
        return File(files, JoinPath(run_folder, ".lock"), OpenMode::kLock);
      }()) {
  if (!file_.TryLock()) {
    char text[32] = {};
    const size_t count = file_.Read(text, sizeof text - 1);
    long long holder = 0;
    std::from_chars(text, text + count, holder);
    throw LockedError(run_folder + ": in use by another run" +
                      (holder > 0 ? " (process " + std::to_string(holder) + ")" : "") +
                      "; wait for it, stop it, or choose another folder");
  }
  // Always the same length: nothing of an earlier holder is left behind.
  char text[32];
  const int length =
      std::snprintf(text, sizeof text, "%-20lld\n", static_cast<long long>(ProcessId()));
  file_.Write(text, static_cast<size_t>(length));
}

}  // namespace lanewise::model
