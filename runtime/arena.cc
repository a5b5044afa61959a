#include "runtime/arena.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>

#include "runtime/check.h"
#include "runtime/container.h"

#if defined(_WIN32)
#include <windows.h>

#include <psapi.h>
#else
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace lanewise::runtime {

namespace {

std::atomic<size_t> fail_after{0};

bool FailNow() {
  size_t k = fail_after.load();
  while (k > 0 && !fail_after.compare_exchange_weak(k, k - 1)) {
  }
  return k == 1;
}

#if !defined(_WIN32)
// The line "KEY  123 kB" of a file in /proc, in bytes; 0 without it.
size_t ProcBytes(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10) * 1024;
  }
  return 0;
}
#endif

}  // namespace

void FailArenaAfter(size_t k) { fail_after = k; }

OutOfMemory::OutOfMemory(const std::string& purpose, size_t bytes)
    : std::runtime_error(StrCat("out of memory: ", purpose, " needs ",
                                bytes / 1048576 + static_cast<size_t>(bytes % 1048576 != 0),
                                " MiB")),
      bytes_(bytes) {}

Arena::Arena(const std::string& purpose, size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  if (FailNow()) throw OutOfMemory(purpose, bytes);
#if defined(_WIN32)
  data_ = static_cast<std::byte*>(
      VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE));
  if (data_ == nullptr) throw OutOfMemory(purpose, bytes);
#else
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw OutOfMemory(purpose, bytes);
  data_ = static_cast<std::byte*>(p);
#if defined(MADV_HUGEPAGE)
  if (bytes >= (size_t{4} << 20)) madvise(p, bytes, MADV_HUGEPAGE);  // only a hint
#endif
#endif
}

Arena::~Arena() {
  if (data_ == nullptr) return;
#if defined(_WIN32)
  VirtualFree(data_, 0, MEM_RELEASE);
#else
  munmap(data_, size_);
#endif
}

Arena::Arena(Arena&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

size_t PeakResidentBytes() {
#if defined(_WIN32)
  PROCESS_MEMORY_COUNTERS counters;
  if (!GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof(counters))) return 0;
  return counters.PeakWorkingSetSize;
#else
  // What getrusage says begins with the memory of the program that started this one, on Linux.
  if (const size_t bytes = ProcBytes("/proc/self/status", "VmHWM:")) return bytes;
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
#if defined(__APPLE__)
  return static_cast<size_t>(usage.ru_maxrss);
#else
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
#endif
#endif
}

size_t TotalMemoryBytes() {
#if defined(_WIN32)
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof(status);
  return GlobalMemoryStatusEx(&status) ? static_cast<size_t>(status.ullTotalPhys) : 0;
#else
  const size_t total = ProcBytes("/proc/meminfo", "MemTotal:");
  return std::min(total, ReadContainerLimits().memory.value_or(total));
#endif
}

size_t AvailableMemoryBytes() {
#if defined(_WIN32)
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof(status);
  return GlobalMemoryStatusEx(&status) ? static_cast<size_t>(status.ullAvailPhys) : 0;
#else
  const size_t available = ProcBytes("/proc/meminfo", "MemAvailable:");
  return std::min(available, ReadContainerLimits().free_memory.value_or(available));
#endif
}

}  // namespace lanewise::runtime
