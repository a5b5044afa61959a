// What a container or a service leaves to this process of the machine: the limits of its control
// groups, v2 or v1. Linux only; elsewhere there are none.
#ifndef LANEWISE_RUNTIME_CONTAINER_H_
#define LANEWISE_RUNTIME_CONTAINER_H_

#include <cstddef>
#include <optional>
#include <string>

namespace lanewise::runtime {

struct ContainerLimits {
  std::optional<double> cores;        // processor time in a second, as `docker run --cpus` gives it
  std::optional<size_t> memory;       // bytes
  std::optional<size_t> free_memory;  // of these; what only caches files counts as free
};

// The lowest limits of the process's groups and all above them. Files that are missing or say
// nothing set no limit. `root` comes before /proc and /sys, for tests.
ContainerLimits ReadContainerLimits(const std::string& root = "");

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_CONTAINER_H_
