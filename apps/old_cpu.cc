// A native build on a CPU older than its own says so, instead of dying of an illegal instruction.
#include <cstdio>
#include <cstdlib>

#include "kernels/targets.h"

namespace lanewise::apps {
namespace {

#if defined(__GNUC__)
// Before all other initializers of the program: they may already run newer instructions.
[[gnu::constructor(101)]] void RefuseOlderCpu() {
  const char* missing = kernels::MissingTarget();
  if (missing == nullptr) return;
  std::fprintf(stderr,
               "error: this is a native build for a CPU with %s, which this one lacks; build it "
               "here (./dev build native) or take the release build, which runs on any\n",
               missing);
  std::_Exit(2);
}
#endif

}  // namespace
}  // namespace lanewise::apps
