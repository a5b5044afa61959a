#include "runtime/profiler.h"

#include <algorithm>
#include <iomanip>
#include <ostream>

namespace lanewise::runtime {

Profiler::Profiler(size_t capacity) : capacity_(capacity) {
  zones_.reserve(capacity);
  sums_.reserve(128);
}

void Profiler::Record(std::string_view name, int track, Clock::time_point begin,
                      Clock::time_point end, const OpCost& cost) {
  const std::lock_guard lock(mutex_);
  if (zones_.size() < capacity_) {
    zones_.push_back({name, track, begin, end});
  } else if (capacity_ > 0) {
    zones_[next_ % capacity_] = {name, track, begin, end};
  }
  ++next_;
  auto it = std::find_if(sums_.begin(), sums_.end(), [&](const Sum& s) { return s.name == name; });
  if (it == sums_.end()) it = sums_.insert(sums_.end(), Sum{.name = name});
  ++it->calls;
  it->seconds += std::chrono::duration<double>(end - begin).count();
  it->cost.flops += cost.flops;
  it->cost.bytes += cost.bytes;
}

void Profiler::WriteTrace(std::ostream& out) const {
  const std::lock_guard lock(mutex_);
  const auto micros = [&](Clock::time_point t) {
    return std::chrono::duration<double, std::micro>(t - start_).count();
  };
  out << std::fixed << std::setprecision(3) << "{\"traceEvents\":[";
  const char* comma = "\n";
  for (const Zone& z : zones_) {
    out << comma << R"({"name":")" << z.name << R"(","ph":"X","pid":1,"tid":)" << z.track
        << ",\"ts\":" << micros(z.begin) << ",\"dur\":" << micros(z.end) - micros(z.begin) << "}";
    comma = ",\n";
  }
  out << "\n]}\n";
}

void Profiler::WriteSummary(std::ostream& out, double peak_gflops) const {
  const std::lock_guard lock(mutex_);
  std::vector<Sum> sums = sums_;
  std::sort(sums.begin(), sums.end(),
            [](const Sum& a, const Sum& b) { return a.seconds > b.seconds; });
  double total = 0;
  for (const Sum& s : sums) total += s.seconds;
  out << std::left << std::setw(30) << "operation" << std::right << std::setw(10) << "calls"
      << std::setw(12) << "ms" << std::setw(9) << "share" << std::setw(10) << "GFLOP/s"
      << std::setw(9) << "GB/s" << std::setw(9) << "of peak" << "\n";
  for (const Sum& s : sums) {
    const double gflops = s.cost.flops / s.seconds * 1e-9;
    out << std::left << std::setw(30) << s.name << std::right << std::fixed << std::setw(10)
        << s.calls << std::setprecision(2) << std::setw(12) << s.seconds * 1e3
        << std::setprecision(1) << std::setw(8) << 100 * s.seconds / total << "%" << std::setw(10)
        << gflops << std::setw(9) << s.cost.bytes / s.seconds * 1e-9;
    if (peak_gflops > 0) out << std::setw(8) << 100 * gflops / peak_gflops << "%";
    out << "\n";
  }
}

}  // namespace lanewise::runtime
