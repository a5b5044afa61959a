// Which SIMD target runs: the one place that knows, for programs, logs and tests.
#ifndef LANEWISE_KERNELS_TARGETS_H_
#define LANEWISE_KERNELS_TARGETS_H_

#include <cstddef>
#include <string_view>
#include <vector>

namespace lanewise::kernels {

// Name of the target that kernels run now, e.g. "AVX3" or "NEON". Names are Highway's.
const char* TargetName();

// Names of the targets that are compiled in and that this CPU has, best first. Never empty, and not
// changed by ForceTarget.
std::vector<const char*> SupportedTargetNames();

// Bytes of one vector of the target that runs now.
size_t VectorBytes();

// Makes all kernels run the named target (letter case is ignored), or the best one again with "" or
// "auto". False, and nothing changed, if the name is not one of SupportedTargetNames().
// Process-wide; must not be called while a kernel runs.
bool ForceTarget(std::string_view name);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_TARGETS_H_
