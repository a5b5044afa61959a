// Where the time goes: one zone per node, as a trace for chrome://tracing and Perfetto or as a
// table.
#ifndef LANEWISE_RUNTIME_PROFILER_H_
#define LANEWISE_RUNTIME_PROFILER_H_

#include <chrono>
#include <cstddef>
#include <iosfwd>
#include <mutex>
#include <string_view>
#include <vector>

#include "runtime/op.h"

namespace lanewise::runtime {

// Zones may be recorded from several threads. The trace keeps the last `capacity` zones; sums keep
// all.
class Profiler {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Profiler(size_t capacity = size_t{1} << 18);

  // `name` must outlive the profiler (operation names do). track: the shard that ran it.
  void Record(std::string_view name, int track, Clock::time_point begin, Clock::time_point end,
              const OpCost& cost);

  // Trace event format (JSON).
  void WriteTrace(std::ostream& out) const;
  // Per operation: calls, time, share, GFLOP/s, GB/s and percent of the given peak (0: unknown).
  void WriteSummary(std::ostream& out, double peak_gflops) const;

 private:
  struct Zone {
    std::string_view name;
    int track;
    Clock::time_point begin, end;
  };
  struct Sum {
    std::string_view name;
    size_t calls = 0;
    double seconds = 0;
    OpCost cost = {};
  };

  mutable std::mutex mutex_;
  std::vector<Zone> zones_;
  size_t capacity_;
  size_t next_ = 0;  // zones recorded so far; the oldest are overwritten
  std::vector<Sum> sums_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_PROFILER_H_
