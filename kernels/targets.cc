#include "kernels/targets.h"

#include <algorithm>
#include <cctype>
#include <cstdint>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/targets.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels::HWY_NAMESPACE {
namespace {

int64_t ThisTarget() { return HWY_TARGET; }
size_t ThisVectorBytes() {
  namespace hn = hwy::HWY_NAMESPACE;
  return hn::Lanes(hn::ScalableTag<uint8_t>());
}

}  // namespace
}  // namespace lanewise::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {

HWY_EXPORT(ThisTarget);
HWY_EXPORT(ThisVectorBytes);

// Compiled in and supported by the CPU, whatever is forced: the first use in the process comes
// before anything can have been forced.
int64_t AvailableTargets() {
  static const int64_t targets = [] {
    const int64_t found = HWY_SUPPORTED_TARGETS & HWY_TARGETS;
    // Asking chooses for the dispatch too, but without the targets of one vector length (SVE).
    hwy::SetSupportedTargetsForTest(0);
    return found;
  }();
  return targets;
}

}  // namespace

constinit const int64_t kStaticTarget = HWY_STATIC_TARGET;

bool SameName(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::toupper(x) == std::toupper(y); });
}

const char* TargetName() { return hwy::TargetName(HWY_DYNAMIC_DISPATCH(ThisTarget)()); }

size_t VectorBytes() { return HWY_DYNAMIC_DISPATCH(ThisVectorBytes)(); }

bool IsZen4OrLater() {
#if HWY_ARCH_X86 && (HWY_COMPILER_GCC || HWY_COMPILER_CLANG)
  return __builtin_cpu_is("amd") && __builtin_cpu_supports("avx512f");
#else
  return false;
#endif
}

std::vector<const char*> SupportedTargetNames() {
  std::vector<const char*> names;
  for (int64_t rest = AvailableTargets(); rest != 0; rest &= rest - 1) {
    names.push_back(hwy::TargetName(rest & -rest));  // a lower bit is a better target
  }
  return names;
}

bool ForceTarget(std::string_view name) {
  const int64_t available = AvailableTargets();
  if (name.empty() || SameName(name, "auto")) {
    hwy::SetSupportedTargetsForTest(0);
    return true;
  }
  for (int64_t rest = available; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    if (!SameName(name, hwy::TargetName(target))) continue;
    // The worse targets stay on: a file compiled without this one takes the next it has.
    hwy::SetSupportedTargetsForTest(rest);
    return true;
  }
  return false;
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE
