// The machine that this runs on: what it is called, and what it can do at most.
#ifndef LANEWISE_RUNTIME_MACHINE_H_
#define LANEWISE_RUNTIME_MACHINE_H_

#include <cstddef>
#include <span>
#include <string>

#include "runtime/parallel.h"

namespace lanewise::runtime {

struct MachineInfo {
  std::string cpu;           // "AMD EPYC 9R14"; "unknown" where the system does not tell
  std::string architecture;  // "x86_64", "aarch64"
  size_t threads = 0;        // hardware threads this process may use
  size_t l1d_bytes = 0, l2_bytes = 0, l3_bytes = 0;  // of the first core; 0: none or unknown
  size_t memory_bytes = 0, available_bytes = 0;
};

MachineInfo DescribeMachine();

// Multiplications and additions in a nanosecond (GFLOP/s) of all the scheduler's threads together.
struct PeakGflops {
  double mean = 0;         // what a speed of as long a time beside it is compared with
  double undisturbed = 0;  // of milliseconds without another program's turn: what the machine can
};
// Over `seconds`. The mean moves with the load of a shared machine.
PeakGflops MeasurePeakGflops(const Scheduler& scheduler, double seconds, bool bf16 = false);

// GB/s at which all threads together read `data`, from wherever it lies: from memory if it is
// beyond the caches. The best of the passes that `seconds` hold, at least one.
double MeasureReadBandwidth(const Scheduler& scheduler, std::span<const float> data,
                            double seconds);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_MACHINE_H_
