// Stands for a native build of the program: compiled for a newer CPU, and its static initializers
// run that CPU's instructions.
#include <array>
#include <cstdio>

namespace {

float Sum(const std::array<volatile float, 64>& values) {
  float sum = 0;
  for (size_t i = 0; i < values.size(); ++i) sum += values[i] * values[i];
  return sum;
}

const std::array<volatile float, 64> values = {1, 2, 3};
const float sum = Sum(values);

}  // namespace

int main() {
  std::printf("the sum is %g\n", sum);
  return 0;
}
