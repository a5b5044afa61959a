#include "runtime/container.h"

#include <algorithm>
#include <fstream>
#include <sstream>

namespace lanewise::runtime {

namespace {

// The first number of a file, or of its line "KEY 123"; none where it says "max".
std::optional<double> NumberIn(const std::string& path, const std::string& key = "") {
  std::ifstream file(path);
  double number = 0;
  if (key.empty()) return file >> number ? std::optional(number) : std::nullopt;
  for (std::string name; file >> name >> number;) {
    if (name == key) return number;
  }
  return std::nullopt;
}

template <typename T>
void Lower(std::optional<T>* limit, double value) {
  const T converted = static_cast<T>(std::max(value, 0.0));
  *limit = std::min(limit->value_or(converted), converted);
}

// v1 says so many bytes where it has no limit.
constexpr double kNoLimit = 1e18;

void ReadMemory(const std::string& limit_file, const std::string& usage_file,
                const std::string& stat_file, const std::string& cache_key,
                ContainerLimits* limits) {
  const std::optional<double> limit = NumberIn(limit_file);
  if (!limit || *limit >= kNoLimit) return;
  Lower(&limits->memory, *limit);
  const double used = NumberIn(usage_file).value_or(0) - NumberIn(stat_file, cache_key).value_or(0);
  Lower(&limits->free_memory, *limit - used);
}

void ReadGroup2(const std::string& group, ContainerLimits* limits) {
  std::ifstream file(group + "/cpu.max");
  double quota = 0, period = 0;
  if (file >> quota >> period && period > 0) Lower(&limits->cores, quota / period);
  ReadMemory(group + "/memory.max", group + "/memory.current", group + "/memory.stat",
             "inactive_file", limits);
}

void ReadGroup1(const std::string& group, ContainerLimits* limits) {
  const std::optional<double> quota = NumberIn(group + "/cpu.cfs_quota_us");
  const std::optional<double> period = NumberIn(group + "/cpu.cfs_period_us");
  if (quota && *quota > 0 && period && *period > 0) Lower(&limits->cores, *quota / *period);
  ReadMemory(group + "/memory.limit_in_bytes", group + "/memory.usage_in_bytes",
             group + "/memory.stat", "total_inactive_file", limits);
}

}  // namespace

ContainerLimits ReadContainerLimits(const std::string& root) {
  ContainerLimits limits;
  // Lines "ID:CONTROLLERS:PATH", without controllers for v2. A container may see the path that its
  // group has outside, which does not exist inside; what is mounted at the top is its group then.
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    std::istringstream fields(line);
    std::string id, controllers, path;
    if (!std::getline(fields, id, ':') || !std::getline(fields, controllers, ':')) continue;
    std::getline(fields, path);
    const bool v2 = controllers.empty();
    std::string folder = root + "/sys/fs/cgroup";
    if (!v2) folder.append("/").append(controllers);
    for (;;) {
      v2 ? ReadGroup2(folder + path, &limits) : ReadGroup1(folder + path, &limits);
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos) break;
      path.resize(slash);
    }
  }
  return limits;
}

}  // namespace lanewise::runtime
