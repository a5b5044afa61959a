#ifndef _WIN32

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "apps/console.h"

namespace lanewise::apps {

void OpenStreams() {
  for (const int stream : {kInput, kOutput, kMessages}) {
    if (fcntl(stream, F_GETFD) >= 0 || errno != EBADF) continue;
    // The wrong way round: reading and writing fail with EBADF, as they would without. The lowest
    // free number is taken, which is this one.
    if (open("/dev/null", stream == kInput ? O_WRONLY : O_RDONLY) != stream) return;
  }
}

int64_t ReadStream(char* data, size_t size) { return read(kInput, data, size); }

int64_t WriteStream(int stream, const char* data, size_t size) { return write(stream, data, size); }

bool IsTerminal(int stream) { return isatty(stream) != 0; }

bool ShowsColor(int stream) {
  const char* term = std::getenv("TERM");
  return IsTerminal(stream) && (term == nullptr || std::strcmp(term, "dumb") != 0);
}

size_t ColumnsOf(int stream) {
  struct winsize size = {};
  return ioctl(stream, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

std::vector<std::string> Arguments(int argc, char** argv) {
  return {argv + std::min(argc, 1), argv + argc};
}

std::optional<std::string> Environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

std::vector<std::string> EnvironmentNames() {
  std::vector<std::string> names;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    names.emplace_back(*entry, std::strcspn(*entry, "="));
  }
  return names;
}

}  // namespace lanewise::apps

#endif  // !_WIN32
