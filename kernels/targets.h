// Which SIMD target runs: the one place that knows, for programs, logs and tests.
#ifndef LANEWISE_KERNELS_TARGETS_H_
#define LANEWISE_KERNELS_TARGETS_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace lanewise::kernels {

// Name of the target that kernels run now, e.g. "AVX3" or "NEON". Names are Highway's.
const char* TargetName();

// Whether two names are the same but for letter case.
bool SameName(std::string_view a, std::string_view b);

// Names of the targets that are compiled in and that this CPU has, best first. Never empty, and not
// changed by ForceTarget.
std::vector<const char*> SupportedTargetNames();

// Bytes of one vector of the target that runs now.
size_t VectorBytes();

// Whether this CPU is AMD's with AVX-512 (Zen 4 and later), whatever target runs: some orders of
// reading and writing memory that others gain by are slow there.
bool IsZen4OrLater();

// Makes all kernels run the named target (letter case is ignored), or the best one again with "" or
// "auto". False, and nothing changed, if the name is not one of SupportedTargetNames().
// Process-wide; must not be called while a kernel runs.
bool ForceTarget(std::string_view name);

// Highway's bit of the one target that this build cannot do without: the architecture's baseline,
// or all that a native build has. A constant: reading it runs no code of the SIMD files.
extern const int64_t kStaticTarget;

// The name of that target if this CPU lacks it: no kernel may run then. nullptr if all is well.
// For the start of a program: needs no static initializer and no newer CPU itself, and forgets what
// was forced.
const char* MissingTarget();

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_TARGETS_H_
