// FileSystem over POSIX calls.
#ifndef _WIN32

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <limits>

#include "model/file.h"

namespace lanewise::model {
namespace {

int ErrorOr(int result) { return result < 0 ? -errno : result; }
int Fd(int64_t handle) { return static_cast<int>(handle); }

class PosixFiles final : public FileSystem {
 public:
  int64_t Open(const std::string& path, OpenMode mode) override {
    int flags = O_CLOEXEC;
    switch (mode) {
      case OpenMode::kRead:
        flags |= O_RDONLY;
        break;
      case OpenMode::kWrite:
        flags |= O_WRONLY | O_CREAT | O_TRUNC;
        break;
      case OpenMode::kAppend:
        flags |= O_WRONLY | O_CREAT | O_APPEND;
        break;
      case OpenMode::kLock:
        flags |= O_RDWR | O_CREAT;
        break;
    }
    return ErrorOr(::open(path.c_str(), flags, 0666));
  }

  int64_t Read(int64_t handle, void* data, size_t size) override {
    const ssize_t count = ::read(Fd(handle), data, size);
    return count < 0 ? -errno : count;
  }

  int64_t Write(int64_t handle, const void* data, size_t size) override {
    const ssize_t count = ::write(Fd(handle), data, size);
    return count < 0 ? -errno : count;
  }

  int Sync(int64_t handle) override {
#ifdef __APPLE__
    // fsync there leaves the data in the disk's own cache.
    if (::fcntl(Fd(handle), F_FULLFSYNC) == 0) return 0;
#endif
    return ErrorOr(::fsync(Fd(handle)));
  }

  int Close(int64_t handle) override { return ErrorOr(::close(Fd(handle))); }

  int Lock(int64_t handle) override { return ErrorOr(::flock(Fd(handle), LOCK_EX | LOCK_NB)); }

  int Map(int64_t handle, size_t size, const std::byte** data) override {
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, Fd(handle), 0);
    if (address == MAP_FAILED) return -errno;
    *data = static_cast<const std::byte*>(address);
    return 0;
  }

  void Unmap(const std::byte* data, size_t size) override {
    ::munmap(const_cast<std::byte*>(data), size);
  }

  int Info(const std::string& path, FileInfo* info) override {
    struct stat status;
    if (::stat(path.c_str(), &status) < 0) {
      if (errno != ENOENT && errno != ENOTDIR) return -errno;
      *info = {};
      return 0;
    }
    info->kind = S_ISREG(status.st_mode)   ? FileInfo::Kind::kFile
                 : S_ISDIR(status.st_mode) ? FileInfo::Kind::kDirectory
                                           : FileInfo::Kind::kOther;
    info->size = static_cast<uint64_t>(status.st_size);
    info->identity = {static_cast<uint64_t>(status.st_dev), static_cast<uint64_t>(status.st_ino)};
    return 0;
  }

  int ReadLink(const std::string& path, std::string* target) override {
    std::string text(256, '\0');
    for (;;) {
      const ssize_t length = ::readlink(path.c_str(), text.data(), text.size());
      if (length < 0) return -errno;
      if (static_cast<size_t>(length) < text.size()) {
        target->assign(text, 0, static_cast<size_t>(length));
        return 0;
      }
      text.resize(2 * text.size());  // it may have been cut
    }
  }

  int List(const std::string& path, std::vector<std::string>* names) override {
    DIR* folder = ::opendir(path.c_str());
    if (folder == nullptr) return -errno;
    errno = 0;
    while (const dirent* entry = ::readdir(folder)) {
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names->emplace_back(name);
      errno = 0;
    }
    const int error = errno;
    ::closedir(folder);
    return -error;
  }

  int Rename(const std::string& from, const std::string& to) override {
    return ErrorOr(::rename(from.c_str(), to.c_str()));
  }
  int HardLink(const std::string& existing, const std::string& link) override {
    return ErrorOr(::link(existing.c_str(), link.c_str()));
  }
  int RemoveFile(const std::string& path) override { return ErrorOr(::unlink(path.c_str())); }
  int RemoveDirectory(const std::string& path) override { return ErrorOr(::rmdir(path.c_str())); }
  int MakeDirectory(const std::string& path) override {
    return ErrorOr(::mkdir(path.c_str(), 0777));
  }

  int SyncDirectory(const std::string& path) override {
    const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    // Some network file systems know no fsync of a folder and say EINVAL.
    const int result = ::fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
    ::close(fd);
    return result;
  }

  int64_t FreeSpace(const std::string& path) override {
    struct statvfs status;
    if (::statvfs(path.c_str(), &status) < 0) return -errno;
    const auto blocks = static_cast<uint64_t>(status.f_bavail);
    const auto block = static_cast<uint64_t>(status.f_frsize);
    constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (block != 0 && blocks > kMost / block) return static_cast<int64_t>(kMost);
    return static_cast<int64_t>(blocks * block);
  }
};

}  // namespace

int64_t ProcessId() { return ::getpid(); }

std::unique_ptr<FileSystem> MakeSystemFiles() { return std::make_unique<PosixFiles>(); }

}  // namespace lanewise::model

#endif  // !_WIN32
