#include "model/file.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <utility>

#include "model/error.h"

namespace lanewise::model {
namespace {

// One call never moves more: some systems refuse lengths beyond 2 GiB.
constexpr size_t kLargestTransfer = size_t{1} << 30;
constexpr uint64_t kFreeSpaceMargin = uint64_t{1} << 20;

#ifdef _WIN32
constexpr std::string_view kSeparators = "/\\";
#else
constexpr std::string_view kSeparators = "/";
#endif
bool IsSeparator(char c) { return kSeparators.find(c) != std::string_view::npos; }

bool IsMissing(int64_t error) { return error == -ENOENT || error == -ENOTDIR; }

// Errors of opening that say that the argument was wrong, not the machine.
[[noreturn]] void ThrowOpenError(const std::string& path, OpenMode mode, int64_t error) {
  if (mode == OpenMode::kRead) {
    if (IsMissing(error)) throw InputError(path + ": no such file; check the path");
    if (error == -EISDIR) throw InputError(path + ": is a folder where a file is expected");
    if (error == -EACCES || error == -EPERM) {
      throw InputError(path + ": may not be read (permission denied); change its permissions");
    }
    ThrowIoError("open", path, error);
  }
  ThrowIoError(mode == OpenMode::kWrite ? "create" : "open for writing", path, error);
}

// Calls `operation` until it is not interrupted.
template <typename Operation>
int64_t Retry(const Operation& operation) {
  int64_t result;
  do {
    result = operation();
  } while (result == -EINTR);
  return result;
}

}  // namespace

void ThrowIoError(std::string_view action, const std::string& path, int64_t error) {
  const int number = static_cast<int>(error < 0 ? -error : error);
  std::string message(action);
  message += " " + path + ": " + std::generic_category().message(number);
  if (IsDiskFull(number)) {
    message += "; free some space or choose another folder";
  } else if (number == EACCES || number == EPERM || number == EROFS) {
    message += "; choose a folder that may be written to";
  } else if (number == EIO) {
    message += "; the disk or its connection may be failing";
  }
  throw IoError(message, number);
}

bool IsDiskFull(int error_number) {
#ifdef EDQUOT
  if (error_number == EDQUOT) return true;
#endif
  return error_number == ENOSPC;
}

std::string JoinPath(std::string_view folder, std::string_view name) {
  std::string path(folder);
  if (!path.empty() && !IsSeparator(path.back())) path += '/';
  return path.append(name);
}

std::string ParentPath(const std::string& path) {
  size_t end = path.size();
  while (end > 1 && IsSeparator(path[end - 1])) --end;
  const size_t slash = path.find_last_of(kSeparators, end == 0 ? 0 : end - 1);
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string BaseName(const std::string& path) {
  size_t end = path.size();
  while (end > 1 && IsSeparator(path[end - 1])) --end;
  const size_t slash = path.find_last_of(kSeparators, end == 0 ? 0 : end - 1);
  const size_t begin = slash == std::string::npos || end == 1 ? 0 : slash + 1;
  return path.substr(begin, end - begin);
}

std::string FormatBytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024.0 && unit + 1 < std::size(kUnits)) {
    value /= 1024.0;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

File::File(FileSystem& files, const std::string& path, OpenMode mode)
    : files_(&files), path_(path) {
  handle_ = Retry([&] { return files.Open(path, mode); });
  if (handle_ < 0) ThrowOpenError(path, mode, handle_);
}

File::~File() {
  if (handle_ >= 0) files_->Close(handle_);
}

File::File(File&& other) noexcept
    : files_(other.files_),
      path_(std::move(other.path_)),
      handle_(std::exchange(other.handle_, -1)) {}

size_t File::Read(void* data, size_t size) {
  size_t done = 0;
  while (done < size) {
    const size_t part = std::min(size - done, kLargestTransfer);
    const int64_t count =
        Retry([&] { return files_->Read(handle_, static_cast<char*>(data) + done, part); });
    if (count == -EISDIR) throw InputError(path_ + ": is a folder where a file is expected");
    if (count < 0) ThrowIoError("read", path_, count);
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return done;
}

void File::Write(const void* data, size_t size) {
  size_t done = 0;
  while (done < size) {
    const size_t part = std::min(size - done, kLargestTransfer);
    const int64_t count =
        Retry([&] { return files_->Write(handle_, static_cast<const char*>(data) + done, part); });
    if (count < 0) ThrowIoError("write", path_, count);
    if (count == 0) ThrowIoError("write", path_, -EIO);
    done += static_cast<size_t>(count);
  }
}

void File::Sync() {
  const int64_t result = Retry([&] { return files_->Sync(handle_); });
  if (result < 0) ThrowIoError("sync", path_, result);
}

void File::Close() {
  // An interrupted close has closed the file all the same; calling it again could close another's.
  const int64_t result = files_->Close(std::exchange(handle_, -1));
  if (result < 0 && result != -EINTR) ThrowIoError("close", path_, result);
}

bool File::TryLock() {
  const int64_t result = Retry([&] { return files_->Lock(handle_); });
  if (result == -EWOULDBLOCK) return false;
  if (result < 0) ThrowIoError("lock", path_, result);
  return true;
}

namespace {

// A mapping that ends with its last owner.
struct Mapping {
  FileSystem* files;
  const std::byte* data;
  size_t size;
  Mapping(FileSystem* f, const std::byte* d, size_t s) : files(f), data(d), size(s) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { files->Unmap(data, size); }
};

std::string ReadToEnd(File& file, uint64_t limit) {
  std::string content;
  constexpr size_t kStep = 1 << 16;
  for (;;) {
    const size_t old_size = content.size();
    const size_t step = std::max(kStep, old_size / 2);
    content.resize(old_size + step);
    const size_t count = file.Read(content.data() + old_size, step);
    content.resize(old_size + count);
    if (content.size() > limit) {
      throw InputError(file.path() + ": longer than " + FormatBytes(limit) +
                       ", the most that is read of such a file");
    }
    if (count < step) return content;
  }
}

// Empty where the path is no symbolic link.
std::string ReadLink(FileSystem& files, const std::string& path) {
  std::string target;
  const int64_t result = Retry([&] { return files.ReadLink(path, &target); });
  if (result == -EINVAL || IsMissing(result)) return "";
  if (result < 0) ThrowIoError("look at", path, result);
  return target;
}

// The end of the path's symbolic links, which are in no circle.
std::string EndOfLinks(FileSystem& files, std::string path) {
  for (;;) {
    const std::string target = ReadLink(files, path);
    if (target.empty()) return path;
    path = IsSeparator(target[0]) ? target : JoinPath(ParentPath(path), target);
  }
}

// What stands where a file is to be written, if that is none.
std::string WhatElse(FileSystem& files, const std::string& path) {
  // Looked at through its links, some of which only the system can follow (/dev/stdout), and of
  // which it refuses circles.
  switch (GetInfo(files, path).kind) {
    case FileInfo::Kind::kDirectory:
      return path + " is a folder; name a file";
    case FileInfo::Kind::kOther:
      return path + " is a device or a pipe; name a file";
    default:
      return "";
  }
}

}  // namespace

MappedFile::MappedFile(FileSystem& files, const std::string& path) : path_(path) {
  const FileInfo info = GetInfo(files, path);
  if (info.kind == FileInfo::Kind::kDirectory) {
    throw InputError(path + ": is a folder where a file is expected");
  }
  File file(files, path, OpenMode::kRead);
  if (info.kind == FileInfo::Kind::kFile && info.size > 0) {
    const auto size = static_cast<size_t>(info.size);
    const std::byte* data = nullptr;
    const int64_t result = Retry([&] { return files.Map(file.handle(), size, &data); });
    if (result >= 0) {
      owner_ = std::make_shared<Mapping>(&files, data, size);
      bytes_ = {data, size};
      return;
    }
    // Not of this file system, or more mappings than the system allows: it is read instead.
    if (result != -ENODEV && result != -ENOMEM) ThrowIoError("map", path, result);
  }
  *this = FromBytes(ReadToEnd(file, UINT64_MAX), path);
}

MappedFile MappedFile::FromBytes(std::string bytes, std::string path) {
  MappedFile result;
  bytes.shrink_to_fit();
  const auto content = std::make_shared<const std::string>(std::move(bytes));
  result.path_ = std::move(path);
  result.bytes_ = std::as_bytes(std::span(*content));
  result.owner_ = content;
  return result;
}

std::string_view MappedFile::text() const {
  return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
}

FileInfo GetInfo(FileSystem& files, const std::string& path) {
  FileInfo info;
  const int64_t result = Retry([&] { return files.Info(path, &info); });
  if (result == -EACCES) {
    throw InputError(path + ": may not be read (permission denied); change its permissions");
  }
  if (result < 0) ThrowIoError("look at", path, result);
  return info;
}

bool IsFile(FileSystem& files, const std::string& path) {
  return GetInfo(files, path).kind == FileInfo::Kind::kFile;
}

bool IsDirectory(FileSystem& files, const std::string& path) {
  return GetInfo(files, path).kind == FileInfo::Kind::kDirectory;
}

std::vector<std::string> ListDirectory(FileSystem& files, const std::string& path) {
  std::vector<std::string> names;
  const int64_t result = Retry([&] {
    names.clear();
    return files.List(path, &names);
  });
  if (result == -EACCES) {
    throw InputError(path + ": may not be read (permission denied); change its permissions");
  }
  if (result < 0) ThrowIoError("list", path, result);
  std::sort(names.begin(), names.end());
  return names;
}

std::string ReadFile(FileSystem& files, const std::string& path, uint64_t limit) {
  File file(files, path, OpenMode::kRead);
  return ReadToEnd(file, limit);
}

void MakeDirectories(FileSystem& files, const std::string& path) {
  const FileInfo info = GetInfo(files, path);
  if (info.kind == FileInfo::Kind::kDirectory) return;
  if (info.kind != FileInfo::Kind::kMissing) {
    throw IoError(path + ": is a file where a folder is expected; choose another name", ENOTDIR);
  }
  const std::string parent = ParentPath(path);
  if (parent != path) MakeDirectories(files, parent);
  const int64_t result = Retry([&] { return files.MakeDirectory(path); });
  if (result < 0 && result != -EEXIST) ThrowIoError("create the folder", path, result);
  SyncDirectory(files, parent);
}

void RenameFile(FileSystem& files, const std::string& from, const std::string& to) {
  const int64_t result = Retry([&] { return files.Rename(from, to); });
  if (result < 0) ThrowIoError("rename " + from + " to", to, result);
}

void SyncDirectory(FileSystem& files, const std::string& path) {
  const int64_t result = Retry([&] { return files.SyncDirectory(path); });
  if (result < 0) ThrowIoError("sync the folder", path, result);
}

void RemoveTree(FileSystem& files, const std::string& path) {
  const bool link = !ReadLink(files, path).empty();
  const FileInfo info = link ? FileInfo{} : GetInfo(files, path);
  int64_t result = 0;
  if (!link && info.kind == FileInfo::Kind::kMissing) return;
  if (info.kind == FileInfo::Kind::kDirectory) {
    for (const std::string& name : ListDirectory(files, path)) {
      RemoveTree(files, JoinPath(path, name));
    }
    result = Retry([&] { return files.RemoveDirectory(path); });
  } else {
    result = Retry([&] { return files.RemoveFile(path); });
  }
  if (result < 0 && result != -ENOENT) ThrowIoError("remove", path, result);
}

void RequireFreeSpace(FileSystem& files, const std::string& path, uint64_t bytes) {
  const int64_t free = Retry([&] { return files.FreeSpace(path); });
  if (free < 0) return;
  if (static_cast<uint64_t>(free) >= bytes &&
      static_cast<uint64_t>(free) - bytes >= kFreeSpaceMargin) {
    return;
  }
  throw IoError(path + ": " + FormatBytes(bytes + kFreeSpaceMargin) + " are needed and " +
                    FormatBytes(static_cast<uint64_t>(free)) +
                    " are free on this disk; free some space or choose another folder",
                ENOSPC);
}

std::string ResolveOutput(FileSystem& files, const std::string& path) {
  const std::string what = WhatElse(files, path);
  if (!what.empty()) throw UsageError(what);
  return EndOfLinks(files, path);
}

void WriteFileAtomically(FileSystem& files, const std::string& path, std::string_view bytes) {
  WriteFileAtomically(files, path, [bytes](File& file) { file.Write(bytes); });
}

void WriteFileAtomically(FileSystem& files, const std::string& path,
                         const std::function<void(File&)>& write) {
  const std::string what = WhatElse(files, path);
  if (!what.empty()) throw IoError(what, EISDIR);
  const std::string target = EndOfLinks(files, path);
  const std::string folder = ParentPath(target);
  const std::string temporary = JoinPath(folder, ".tmp-" + BaseName(target));
  try {
    File file(files, temporary, OpenMode::kWrite);
    write(file);
    file.Sync();
    file.Close();
    RenameFile(files, temporary, target);
  } catch (...) {
    files.RemoveFile(temporary);
    throw;
  }
  SyncDirectory(files, folder);
}

}  // namespace lanewise::model
