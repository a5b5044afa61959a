// A console takes and gives UTF-16, whatever its code page is; files and pipes carry bytes.
#ifdef _WIN32

#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <io.h>
#include <shellapi.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "apps/console.h"
#include "model/file.h"
#include "model/wide.h"

namespace lanewise::apps {

namespace {

constexpr wchar_t kCtrlZ = 0x1A;

constexpr size_t kLargestTransfer = size_t{1} << 24;

int64_t Handle(int stream) { return _get_osfhandle(stream); }
HANDLE Native(int stream) { return reinterpret_cast<HANDLE>(_get_osfhandle(stream)); }

model::FileSystem& Files() {
  static const std::unique_ptr<model::FileSystem> files = model::MakeSystemFiles();
  return *files;
}

int64_t CountOrError(int64_t result) {
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

int64_t ReadConsoleText(char* data, size_t size) {
  wchar_t wide[4096];
  DWORD count = 0;
  const size_t most = std::min(std::size(wide), size / 3);  // the most bytes that one becomes
  SetLastError(ERROR_SUCCESS);
  if (!ReadConsoleW(Native(kInput), wide, static_cast<DWORD>(most), &count, nullptr)) {
    errno = EIO;
    return -1;
  }
  if (count == 0 && GetLastError() == ERROR_OPERATION_ABORTED) {
    Sleep(100);  // by Ctrl-C, whose handler has a thread of its own
    errno = EINTR;
    return -1;
  }
  if (count > 0 && wide[0] == kCtrlZ) return 0;
  std::string text = model::Narrow({wide, count});
  std::erase(text, '\r');
  std::memcpy(data, text.data(), text.size());
  return static_cast<int64_t>(text.size());
}

}  // namespace

// Files are opened as handles: none takes the number of a stream.
void OpenStreams() {}

int64_t ReadStream(char* data, size_t size) {
  if (IsTerminal(kInput)) return ReadConsoleText(data, size);
  return CountOrError(Files().Read(Handle(kInput), data, std::min(size, kLargestTransfer)));
}

int64_t WriteStream(int stream, const char* data, size_t size) {
  if (!IsTerminal(stream)) {
    return CountOrError(Files().Write(Handle(stream), data, std::min(size, kLargestTransfer)));
  }
  const std::wstring wide = model::Wide({data, size});
  for (size_t done = 0; done < wide.size();) {
    const auto part = static_cast<DWORD>(std::min<size_t>(wide.size() - done, 4096));
    DWORD count = 0;
    if (!WriteConsoleW(Native(stream), wide.data() + done, part, &count, nullptr) || count == 0) {
      errno = EIO;
      return -1;
    }
    done += count;
  }
  return static_cast<int64_t>(size);
}

bool IsTerminal(int stream) {
  DWORD mode = 0;
  return GetConsoleMode(Native(stream), &mode) != 0;
}

bool ShowsColor(int stream) {
  DWORD mode = 0;
  return GetConsoleMode(Native(stream), &mode) != 0 &&
         SetConsoleMode(Native(stream), mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING) != 0;
}

size_t ColumnsOf(int stream) {
  CONSOLE_SCREEN_BUFFER_INFO info;
  if (!GetConsoleScreenBufferInfo(Native(stream), &info)) return 0;
  return static_cast<size_t>(std::max(info.srWindow.Right - info.srWindow.Left + 1, 0));
}

// Those of main() are in the system's code page, which lacks most characters.
std::vector<std::string> Arguments(int, char**) {
  std::vector<std::string> words;
  int count = 0;
  wchar_t** wide = CommandLineToArgvW(GetCommandLineW(), &count);
  for (int i = 1; i < count; ++i) words.push_back(model::Narrow(wide[i]));
  LocalFree(wide);
  return words;
}

std::optional<std::string> Environment(const std::string& name) {
  const wchar_t* value = _wgetenv(model::Wide(name).c_str());
  return value == nullptr ? std::nullopt : std::optional(model::Narrow(value));
}

std::vector<std::string> EnvironmentNames() {
  std::vector<std::string> names;
  wchar_t* const all = GetEnvironmentStringsW();
  for (const wchar_t* entry = all; entry != nullptr && *entry != 0; entry += wcslen(entry) + 1) {
    // From 1: the shell's own begin with '='.
    const std::string text = model::Narrow(entry);
    names.push_back(text.substr(0, text.find('=', 1)));
  }
  FreeEnvironmentStringsW(all);
  return names;
}

}  // namespace lanewise::apps

#endif  // _WIN32
