// Runs a test body once on every SIMD target of this machine.
#ifndef LANEWISE_TESTS_SUPPORT_TARGETS_H_
#define LANEWISE_TESTS_SUPPORT_TARGETS_H_

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

#include "hwy/targets.h"
#include "kernels/targets.h"

namespace lanewise::testing {

// Whether files with this test's selection of targets (cmake/Kernels.cmake) are compiled for the
// named one. float32 kernels are not for those that only add bf16: there they run the next one's
// code, which has its own turn.
inline bool CompiledFor(const std::string& target) {
  for (int64_t rest = HWY_TARGETS; rest != 0; rest &= rest - 1) {
    if (target == hwy::TargetName(rest & -rest)) return true;
  }
  return false;
}

// Whether the name contains $LANEWISE_TEST_TARGETS: with an emulator, one set at a time takes long.
inline bool Wanted(const std::string& target) {
  const char* part = std::getenv("LANEWISE_TEST_TARGETS");
  return part == nullptr || target.find(part) != std::string::npos;
}

// Calls fn() with each target in turn that this CPU has and `of` approves, best first, and restores
// the best one afterwards, also when fn throws. A failing assertion prints the target's name.
template <typename Of, typename Fn>
void ForEachTargetOf(Of&& of, Fn&& fn) {
  struct Restore {
    ~Restore() { kernels::ForceTarget("auto"); }
  } restore;
  bool any = false;
  for (const std::string target : kernels::SupportedTargetNames()) {
    if (!of(target) || !Wanted(target)) continue;
    any = true;
    CAPTURE(target);
    REQUIRE(kernels::ForceTarget(target));
    REQUIRE(kernels::TargetName() == target);
    fn();
  }
  REQUIRE(any);
}

// For a test of kernels: those that they are compiled for.
template <typename Fn>
void ForEachTarget(Fn&& fn) {
  ForEachTargetOf(CompiledFor, std::forward<Fn>(fn));
}

// For a test of more, which knows nothing of targets itself: all.
template <typename Fn>
void ForEveryTarget(Fn&& fn) {
  ForEachTargetOf([](const std::string&) { return true; }, std::forward<Fn>(fn));
}

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_TARGETS_H_
