// Everything that reads what others wrote, as functions that take any bytes: each accepts them or
// throws model::Error. Anything else that happens (another exception, a crash, a broken promise) is
// a finding.
#ifndef LANEWISE_TESTS_FUZZ_TARGETS_H_
#define LANEWISE_TESTS_FUZZ_TARGETS_H_

#include <span>
#include <string_view>

namespace lanewise::testing {

struct FuzzTarget {
  std::string_view name;  // of its corpus, too
  void (*run)(std::string_view bytes);
};

std::span<const FuzzTarget> FuzzTargets();

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_FUZZ_TARGETS_H_
