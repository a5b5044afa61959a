// Runs a test body once on every SIMD target of this machine.
#ifndef LANEWISE_TESTS_SUPPORT_TARGETS_H_
#define LANEWISE_TESTS_SUPPORT_TARGETS_H_

#include <doctest/doctest.h>

#include <string>

#include "kernels/targets.h"

namespace lanewise::testing {

// Calls fn() with each supported target in turn, best first, and restores the best one afterwards,
// also when fn throws. A failing assertion prints the target's name.
template <typename Fn>
void ForEachTarget(Fn&& fn) {
  struct Restore {
    ~Restore() { kernels::ForceTarget("auto"); }
  } restore;
  for (const std::string target : kernels::SupportedTargetNames()) {
    CAPTURE(target);
    REQUIRE(kernels::ForceTarget(target));
    REQUIRE(kernels::TargetName() == target);
    fn();
  }
}

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_TARGETS_H_
