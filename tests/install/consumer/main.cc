#include <cstdio>

#include "kernels/targets.h"
#include "kernels/view.h"

int main() {
  float data[6] = {1, 2, 3, 4, 5, 6};
  const lanewise::kernels::Mat<float> m{data, 2, 3, 3};
  std::printf("SIMD target: %s\n", lanewise::kernels::TargetName());
  return m.Row(1)[0] == 4.0f && !lanewise::kernels::SupportedTargetNames().empty() ? 0 : 1;
}
