// Compiled for any CPU of the architecture, also in a native build, and free of anything that
// another file could supply in a version for newer CPUs: no templates, no inline functions.
#include <cstdint>

#include "hwy/targets.h"
#include "kernels/targets.h"

namespace lanewise::kernels {

const char* MissingTarget() {
#if HWY_HAVE_RUNTIME_DISPATCH
  int64_t needed = kStaticTarget;
#if HWY_ARCH_X86
  // AVX3_ZEN4 is AVX3_DL with bfloat16, and Highway finds it on CPUs of one maker only.
  if (needed == HWY_AVX3_ZEN4) needed = HWY_AVX3_DL;
#endif
  const int64_t found = hwy::SupportedTargets();
  hwy::SetSupportedTargetsForTest(0);  // the first kernel that runs chooses
  if ((found & needed) == 0) return hwy::TargetName(needed);
#endif
  return nullptr;
}

}  // namespace lanewise::kernels
