// FileSystem over Windows calls. Sharing flags let files be renamed and removed while they are
// open, as on POSIX systems; a file that is mapped may refuse both.
#ifdef _WIN32

#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#undef RemoveDirectory  // a macro, and a name of FileSystem

#include <algorithm>
#include <cerrno>
#include <limits>

#include "model/file.h"
#include "model/wide.h"

namespace lanewise::model {

std::wstring Wide(std::string_view text) {
  const int bytes = static_cast<int>(text.size());
  const int size = MultiByteToWideChar(CP_UTF8, 0, text.data(), bytes, nullptr, 0);
  std::wstring wide(static_cast<size_t>(size), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, text.data(), bytes, wide.data(), size);
  return wide;
}

std::string Narrow(std::wstring_view wide) {
  const int length = static_cast<int>(wide.size());
  const int size =
      WideCharToMultiByte(CP_UTF8, 0, wide.data(), length, nullptr, 0, nullptr, nullptr);
  std::string text(static_cast<size_t>(size), '\0');
  WideCharToMultiByte(CP_UTF8, 0, wide.data(), length, text.data(), size, nullptr, nullptr);
  return text;
}

namespace {

std::wstring WidePath(const std::string& path) {
  std::wstring wide = Wide(path);
  std::replace(wide.begin(), wide.end(), L'/', L'\\');
  return wide;
}

int LastError() {
  switch (GetLastError()) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
      return -ENOENT;
    case ERROR_ACCESS_DENIED:
    case ERROR_SHARING_VIOLATION:
    case ERROR_USER_MAPPED_FILE:
      return -EACCES;
    case ERROR_ALREADY_EXISTS:
    case ERROR_FILE_EXISTS:
      return -EEXIST;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
      return -ENOSPC;
    case ERROR_DIR_NOT_EMPTY:
      return -ENOTEMPTY;
    case ERROR_DIRECTORY:
      return -ENOTDIR;
    case ERROR_LOCK_VIOLATION:
      return -EWOULDBLOCK;
    case ERROR_BROKEN_PIPE:
    case ERROR_NO_DATA:
    case ERROR_PIPE_NOT_CONNECTED:
      return -EPIPE;
    case ERROR_WRITE_PROTECT:
      return -EROFS;
    case ERROR_INVALID_FUNCTION:
    case ERROR_NOT_SUPPORTED:
      return -ENOSYS;
    case ERROR_NOT_ENOUGH_MEMORY:
      return -ENOMEM;
    default:
      return -EIO;
  }
}

int Result(BOOL success) { return success ? 0 : LastError(); }
HANDLE Native(int64_t handle) { return reinterpret_cast<HANDLE>(static_cast<intptr_t>(handle)); }

class WindowsFiles final : public FileSystem {
 public:
  int64_t Open(const std::string& path, OpenMode mode) override {
    DWORD access = GENERIC_READ;
    DWORD creation = OPEN_EXISTING;
    switch (mode) {
      case OpenMode::kRead:
        break;
      case OpenMode::kWrite:
        access = GENERIC_WRITE, creation = CREATE_ALWAYS;
        break;
      case OpenMode::kAppend:
        access = FILE_APPEND_DATA | SYNCHRONIZE, creation = OPEN_ALWAYS;
        break;
      case OpenMode::kLock:
        access |= GENERIC_WRITE, creation = OPEN_ALWAYS;
        break;
    }
    const HANDLE handle = CreateFileW(WidePath(path).c_str(), access,
                                      FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                                      nullptr, creation, FILE_ATTRIBUTE_NORMAL, nullptr);
    if (handle == INVALID_HANDLE_VALUE) {
      const int error = LastError();
      return error == -EACCES && IsFolder(path) ? -EISDIR : error;
    }
    return static_cast<int64_t>(reinterpret_cast<intptr_t>(handle));
  }

  int64_t Read(int64_t handle, void* data, size_t size) override {
    DWORD count = 0;
    if (!::ReadFile(Native(handle), data, static_cast<DWORD>(size), &count, nullptr)) {
      // The other end of a pipe was closed: the end of the data.
      return GetLastError() == ERROR_BROKEN_PIPE ? 0 : LastError();
    }
    return count;
  }

  int64_t Write(int64_t handle, const void* data, size_t size) override {
    DWORD count = 0;
    if (!::WriteFile(Native(handle), data, static_cast<DWORD>(size), &count, nullptr)) {
      return LastError();
    }
    return count;
  }

  int Sync(int64_t handle) override { return Result(FlushFileBuffers(Native(handle))); }
  int Close(int64_t handle) override { return Result(CloseHandle(Native(handle))); }

  int Lock(int64_t handle) override {
    // A byte far behind the content is locked: the content stays readable for others.
    OVERLAPPED range = {};
    range.OffsetHigh = 0x40000000;
    return Result(LockFileEx(Native(handle), LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY, 0,
                             1, 0, &range));
  }

  int Map(int64_t handle, size_t size, const std::byte** data) override {
    const HANDLE mapping =
        CreateFileMappingW(Native(handle), nullptr, PAGE_READONLY, 0, 0, nullptr);
    if (mapping == nullptr) return LastError();
    const void* address = MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, size);
    const int result = address == nullptr ? LastError() : 0;
    CloseHandle(mapping);
    *data = static_cast<const std::byte*>(address);
    return result;
  }

  void Unmap(const std::byte* data, size_t) override { UnmapViewOfFile(data); }

  int Info(const std::string& path, FileInfo* info) override {
    WIN32_FILE_ATTRIBUTE_DATA data;
    *info = {};
    if (!GetFileAttributesExW(WidePath(path).c_str(), GetFileExInfoStandard, &data)) {
      const int error = LastError();
      return error == -ENOENT || error == -ENOTDIR ? 0 : error;
    }
    info->kind = (data.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0
                     ? FileInfo::Kind::kDirectory
                     : FileInfo::Kind::kFile;
    info->size = (uint64_t{data.nFileSizeHigh} << 32) | data.nFileSizeLow;
    return 0;
  }

  int ReadLink(const std::string&, std::string*) override { return -EINVAL; }

  int List(const std::string& path, std::vector<std::string>* names) override {
    WIN32_FIND_DATAW entry;
    const HANDLE search = FindFirstFileW(WidePath(JoinPath(path, "*")).c_str(), &entry);
    if (search == INVALID_HANDLE_VALUE) return LastError();
    do {
      const std::string name = Narrow(entry.cFileName);
      if (name != "." && name != "..") names->push_back(name);
    } while (FindNextFileW(search, &entry));
    const int result = GetLastError() == ERROR_NO_MORE_FILES ? 0 : LastError();
    FindClose(search);
    return result;
  }

  // Programs that look at every new file, such as virus scanners, are in the way for a moment.
  int Rename(const std::string& from, const std::string& to) override {
    int error = 0;
    for (int attempt = 0; attempt < 10; ++attempt) {
      if (attempt > 0) Sleep(50);
      error = Result(MoveFileExW(WidePath(from).c_str(), WidePath(to).c_str(),
                                 MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH));
      if (error != -EACCES) break;
    }
    return error;
  }
  int HardLink(const std::string& existing, const std::string& link) override {
    return Result(CreateHardLinkW(WidePath(link).c_str(), WidePath(existing).c_str(), nullptr));
  }
  int RemoveFile(const std::string& path) override {
    return Result(DeleteFileW(WidePath(path).c_str()));
  }
  int RemoveDirectory(const std::string& path) override {
    return Result(RemoveDirectoryW(WidePath(path).c_str()));
  }
  int MakeDirectory(const std::string& path) override {
    return Result(CreateDirectoryW(WidePath(path).c_str(), nullptr));
  }
  // Renaming with MOVEFILE_WRITE_THROUGH has done it already.
  int SyncDirectory(const std::string&) override { return 0; }

  int64_t FreeSpace(const std::string& path) override {
    ULARGE_INTEGER free;
    if (!GetDiskFreeSpaceExW(WidePath(path).c_str(), &free, nullptr, nullptr)) return LastError();
    constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    return static_cast<int64_t>(std::min<uint64_t>(free.QuadPart, kMost));
  }

 private:
  static bool IsFolder(const std::string& path) {
    const DWORD attributes = GetFileAttributesW(WidePath(path).c_str());
    return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
  }
};

}  // namespace

int64_t ProcessId() { return static_cast<int64_t>(GetCurrentProcessId()); }

std::unique_ptr<FileSystem> MakeSystemFiles() { return std::make_unique<WindowsFiles>(); }

}  // namespace lanewise::model

#endif  // _WIN32
