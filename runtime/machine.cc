#include "runtime/machine.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/peak.h"
#include "runtime/arena.h"

#if defined(_WIN32)
#ifndef NOMINMAX
#define NOMINMAX
#endif
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#endif

namespace lanewise::runtime {

namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

const char* Architecture() {
#if defined(__x86_64__) || defined(_M_X64)
  return "x86_64";
#elif defined(__aarch64__) || defined(_M_ARM64)
  return "aarch64";
#elif defined(__riscv)
  return "riscv";
#elif defined(__powerpc64__)
  return "ppc64";
#else
  return "unknown";
#endif
}

#if defined(_WIN32)
std::string CpuName() {
  char name[256];
  DWORD size = sizeof(name);
  const LSTATUS status =
      RegGetValueA(HKEY_LOCAL_MACHINE, "HARDWARE\\DESCRIPTION\\System\\CentralProcessor\\0",
                   "ProcessorNameString", RRF_RT_REG_SZ, nullptr, name, &size);
  std::string text = status == ERROR_SUCCESS ? name : "";
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text.empty() ? "unknown" : text;
}

void ReadCaches(MachineInfo* info) {
  DWORD size = 0;
  GetLogicalProcessorInformation(nullptr, &size);
  std::vector<SYSTEM_LOGICAL_PROCESSOR_INFORMATION> entries(size / sizeof(entries[0]));
  if (!GetLogicalProcessorInformation(entries.data(), &size)) return;
  for (const auto& entry : entries) {
    if (entry.Relationship != RelationCache || (entry.ProcessorMask & 1) == 0) continue;
    const CACHE_DESCRIPTOR& cache = entry.Cache;
    if (cache.Level == 1 && cache.Type != CacheInstruction) info->l1d_bytes = cache.Size;
    if (cache.Level == 2) info->l2_bytes = cache.Size;
    if (cache.Level == 3) info->l3_bytes = cache.Size;
  }
}
#else
std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The value of the first line "key : value".
std::string CpuInfoField(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    const size_t value =
        colon == std::string::npos ? colon : line.find_first_not_of(" \t", colon + 1);
    if (value != std::string::npos) return line.substr(value);
  }
  return {};
}

std::string CpuName() {
  std::string name = CpuInfoField("model name");
  if (name.empty()) name = FirstLine("/sys/firmware/devicetree/base/model");
  if (name.empty()) {
    const std::string part = CpuInfoField("CPU part");
    if (!part.empty())
      name = "Arm implementer " + CpuInfoField("CPU implementer") + " part " + part;
  }
  while (!name.empty() && (name.back() == '\0' || name.back() == ' ')) name.pop_back();
  return name.empty() ? "unknown" : name;
}

// "48K" or "32M".
size_t SizeFromText(const std::string& text) {
  size_t value = 0;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      value = value * 10 + static_cast<size_t>(c - '0');
    } else if (c == 'K') {
      return value << 10;
    } else if (c == 'M') {
      return value << 20;
    }
  }
  return value;
}

void ReadCaches(MachineInfo* info) {
  for (int index = 0; index < 8; ++index) {
    const std::string folder =
        "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    const std::string level = FirstLine(folder + "level"), type = FirstLine(folder + "type");
    if (level.empty()) return;
    const size_t bytes = SizeFromText(FirstLine(folder + "size"));
    if (level == "1" && type != "Instruction") info->l1d_bytes = bytes;
    if (level == "2") info->l2_bytes = bytes;
    if (level == "3") info->l3_bytes = bytes;
  }
}
#endif

}  // namespace

MachineInfo DescribeMachine() {
  MachineInfo info;
  info.cpu = CpuName();
  info.architecture = Architecture();
  info.threads = AvailableThreads();
  ReadCaches(&info);
  info.memory_bytes = TotalMemoryBytes();
  info.available_bytes = AvailableMemoryBytes();
  return info;
}

PeakGflops MeasurePeakGflops(const Scheduler& scheduler, double seconds, bool bf16) {
  const auto probe = bf16 ? &kernels::RunBf16Probe : &kernels::RunFmaProbe;
  constexpr size_t kIterations = 10'000;  // tens of microseconds, with AMX some hundred
  constexpr double kMoment = 1e-3;
  const size_t threads = scheduler.threads();
  std::vector<double> all(threads), undisturbed(threads);
  const Clock::time_point begin = Clock::now();
  scheduler.All().For(threads, [&](size_t task, size_t) {
    std::vector<double> moments;
    do {
      const Clock::time_point moment = Clock::now();
      double operations = 0;
      do {
        operations += probe(kIterations);
      } while (SecondsSince(moment) < kMoment);
      all[task] += operations;
      moments.push_back(operations / SecondsSince(moment));
    } while (SecondsSince(begin) < seconds);
    // Another program's turn makes a moment slow; the one tenth may be luck.
    const auto high = moments.begin() + static_cast<std::ptrdiff_t>(moments.size() * 9 / 10);
    std::nth_element(moments.begin(), high, moments.end());
    undisturbed[task] = *high;
  });
  const double elapsed = SecondsSince(begin);
  // Threads that share a core have it in turns.
  const double cores = std::min(1.0, static_cast<double>(AvailableThreads()) / threads);
  return {
      .mean = std::accumulate(all.begin(), all.end(), 0.0) / elapsed * 1e-9,
      .undisturbed = std::accumulate(undisturbed.begin(), undisturbed.end(), 0.0) * cores * 1e-9};
}

double MeasureReadBandwidth(const Scheduler& scheduler, std::span<const float> data,
                            double seconds) {
  const size_t tasks = scheduler.threads();
  const size_t share = data.size() / tasks;
  std::vector<float> sums(tasks * 16);
  double best = 0;
  const Clock::time_point begin = Clock::now();
  do {
    const Clock::time_point start = Clock::now();
    scheduler.All().For(tasks, [&](size_t task, size_t) {
      sums[task * 16] += kernels::RunReadProbe(data.subspan(task * share, share));
    });
    best = std::max(best, static_cast<double>(share * tasks * sizeof(float)) /
                              std::max(SecondsSince(start), 1e-9) * 1e-9);
  } while (SecondsSince(begin) < seconds);
  return best;
}

}  // namespace lanewise::runtime
