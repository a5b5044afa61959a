// The one seam between the project and the operating system's files. FileSystem has an operation
// for each system call that can fail; the functions below it retry what may be retried and turn
// errors into exceptions that name the path. Tests pass their own FileSystem to make the k-th
// operation fail or to lose what was not yet synced.
#ifndef LANEWISE_MODEL_FILE_H_
#define LANEWISE_MODEL_FILE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lanewise::model {

enum class OpenMode {
  kRead,
  kWrite,   // created, or cut to nothing
  kAppend,  // created where missing, written at its end
  kLock,    // created where missing, kept as it is, read and written from its start
};

struct FileInfo {
  enum class Kind { kMissing, kFile, kDirectory, kOther };
  Kind kind = Kind::kMissing;
  uint64_t size = 0;
  // The same for every name of one file or folder; {0, 0} where the system does not say.
  std::pair<uint64_t, uint64_t> identity = {0, 0};
};

// Paths are UTF-8. Each operation returns a value >= 0, or -errno. Reads and writes may be short
// and may return -EINTR: callers use File, which handles both.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual int64_t Open(const std::string& path, OpenMode mode) = 0;  // a handle
  virtual int64_t Read(int64_t handle, void* data, size_t size) = 0;
  virtual int64_t Write(int64_t handle, const void* data, size_t size) = 0;
  virtual int Sync(int64_t handle) = 0;
  virtual int Close(int64_t handle) = 0;
  // Takes an exclusive lock until the handle is closed; -EWOULDBLOCK when another holds it.
  virtual int Lock(int64_t handle) = 0;
  // Maps the first `size` > 0 bytes of a file for reading.
  virtual int Map(int64_t handle, size_t size, const std::byte** data) = 0;
  virtual void Unmap(const std::byte* data, size_t size) = 0;

  // Of what a symbolic link points to. Missing is not an error.
  virtual int Info(const std::string& path, FileInfo* info) = 0;
  // What a symbolic link says, relative to its own folder; -EINVAL where the path is none, and on
  // Windows: links and junctions are taken for what they point to there.
  virtual int ReadLink(const std::string& path, std::string* target) = 0;
  virtual int List(const std::string& path, std::vector<std::string>* names) = 0;  // unsorted
  virtual int Rename(const std::string& from, const std::string& to) = 0;  // replaces a file
  virtual int HardLink(const std::string& existing, const std::string& link) = 0;
  virtual int RemoveFile(const std::string& path) = 0;
  virtual int RemoveDirectory(const std::string& path) = 0;  // an empty one
  virtual int MakeDirectory(const std::string& path) = 0;
  virtual int SyncDirectory(const std::string& path) = 0;
  virtual int64_t FreeSpace(const std::string& path) = 0;  // bytes this user may still write
};

// The operating system's files. Has no state.
std::unique_ptr<FileSystem> MakeSystemFiles();

// "write runs/a/x.bin: No space left on device", with advice for the common causes.
[[noreturn]] void ThrowIoError(std::string_view action, const std::string& path, int64_t error);

int64_t ProcessId();
bool IsDiskFull(int error_number);  // the disk, or this user's share of it

std::string JoinPath(std::string_view folder, std::string_view name);
std::string ParentPath(const std::string& path);  // "." where there is none
std::string BaseName(const std::string& path);
std::string FormatBytes(uint64_t bytes);  // "12.3 MiB"

// An open file. Every error is thrown as IoError; the destructor closes silently.
class File {
 public:
  File(FileSystem& files, const std::string& path, OpenMode mode);
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&&) = delete;

  size_t Read(void* data, size_t size);  // fewer bytes only at the end of the file
  void Write(const void* data, size_t size);
  void Write(std::string_view bytes) { Write(bytes.data(), bytes.size()); }
  void Sync();
  void Close();
  bool TryLock();  // false when another process holds the lock
  const std::string& path() const { return path_; }
  int64_t handle() const { return handle_; }

 private:
  FileSystem* files_;
  std::string path_;
  int64_t handle_;
};

// A file's bytes for reading, mapped; read into memory where it cannot be mapped (pipes).
// Copies share the mapping, which lasts as long as the last of them. A file that another program
// shortens while it is mapped ends the process (SIGBUS): checkpoints are replaced, never shortened.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(FileSystem& files, const std::string& path);
  // The same over bytes in memory; `path` is used in messages.
  static MappedFile FromBytes(std::string bytes, std::string path);
  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const;
  const std::string& path() const { return path_; }
  std::shared_ptr<const void> owner() const { return owner_; }

 private:
  std::string path_;
  std::shared_ptr<const void> owner_;
  std::span<const std::byte> bytes_;
};

FileInfo GetInfo(FileSystem& files, const std::string& path);
bool IsFile(FileSystem& files, const std::string& path);
bool IsDirectory(FileSystem& files, const std::string& path);
std::vector<std::string> ListDirectory(FileSystem& files, const std::string& path);  // sorted
// InputError where the file is longer than `limit`.
std::string ReadFile(FileSystem& files, const std::string& path, uint64_t limit);
void MakeDirectories(FileSystem& files, const std::string& path);  // with its parents
void RenameFile(FileSystem& files, const std::string& from, const std::string& to);
void SyncDirectory(FileSystem& files, const std::string& path);
// Removes a folder with all that is in it. A missing one is fine; of a symbolic link the link is
// removed, not what it points to.
void RemoveTree(FileSystem& files, const std::string& path);
// Throws IoError when fewer than `bytes` (and a margin) are free where `path` is; does nothing
// where the file system cannot tell.
void RequireFreeSpace(FileSystem& files, const std::string& path, uint64_t bytes);
// Where a file with this name is to be written: the end of its symbolic links. UsageError where
// that is no file but a folder, a device or a pipe, which a rename would replace.
std::string ResolveOutput(FileSystem& files, const std::string& path);
// Writes beside the target (ResolveOutput), syncs, renames over it, syncs the folder: at any
// instant the old or the new content is there whole. On an error the temporary file is removed.
void WriteFileAtomically(FileSystem& files, const std::string& path, std::string_view bytes);
void WriteFileAtomically(FileSystem& files, const std::string& path,
                         const std::function<void(File&)>& write);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_FILE_H_
