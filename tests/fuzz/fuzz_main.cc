// The fuzzer's program: libFuzzer's own options, and LANEWISE_FUZZ_TARGET names what is fed. See
// README.md.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "model/error.h"
#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const lanewise::testing::FuzzTarget& target =
      []() -> const lanewise::testing::FuzzTarget& {
    const char* name = std::getenv("LANEWISE_FUZZ_TARGET");
    for (const auto& candidate : lanewise::testing::FuzzTargets()) {
      if (name != nullptr && candidate.name == name) return candidate;
    }
    std::fputs("LANEWISE_FUZZ_TARGET names no target\n", stderr);
    std::exit(2);
  }();
  try {
    target.run({reinterpret_cast<const char*>(data), size});
  } catch (const lanewise::model::Error&) {
    // Refused, as it may be.
  }
  return 0;
}
