#include "bench/kernels/versus.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <vector>

#include "kernels/reduce.h"

namespace lanewise::bench {
namespace {

const BaselineLoops* g_baseline = nullptr;

// Time of this thread where the system tells it: what other programs take does not count.
double Now() {
#ifdef CLOCK_THREAD_CPUTIME_ID
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
#else
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
#endif
}

// The first call only brings its data back into the cache, from which the others were taken out.
double Seconds(const std::function<void()>& work, int repeats) {
  work();
  const double start = Now();
  for (int i = 0; i < repeats; ++i) {
    work();
    benchmark::ClobberMemory();
  }
  return (Now() - start) / repeats;
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

const BaselineLoops* Baseline() { return g_baseline; }
void SetBaseline(const BaselineLoops* loops) { g_baseline = loops; }

void RunVersus(benchmark::State& state, double bytes, bool in_place,
               const std::function<void()>& kernel, const std::function<void()>& loop) {
  const auto half = static_cast<size_t>(bytes / 2.0 / sizeof(float));
  const AlignedFloats from = AllocateFloats(half);
  const AlignedFloats to = AllocateFloats(half);
  kernels::Fill(1.0f, {from.get(), half});
  kernels::Fill(1.0f, {to.get(), half});
  const std::function<void()> probe = [&] {
    kernels::Scale(1.0f, {from.get(), half}, {in_place ? from.get() : to.get(), half});
  };
  const bool with_loop = Baseline() != nullptr && loop != nullptr;
  kernel();
  if (with_loop) loop();
  // Long enough for the clock, short enough for many turns.
  const int repeats = std::max(1, static_cast<int>(50e-6 / std::max(1e-9, Seconds(kernel, 3))));
  std::vector<double> times, vs_loop, of_bandwidth;
  // In batches, or kernels of a microsecond would take minutes. The last one counts as what is
  // left, since all repetitions of a benchmark need the same number of iterations.
  auto left = state.max_iterations;
  const auto batch = [&] { return std::clamp<benchmark::IterationCount>(left, 1, repeats); };
  while (state.KeepRunningBatch(batch())) {
    const double ours = Seconds(kernel, repeats);
    if (with_loop) vs_loop.push_back(Seconds(loop, repeats) / ours);
    of_bandwidth.push_back(Seconds(probe, repeats) / ours);
    state.SetIterationTime(ours * static_cast<double>(batch()));
    left -= batch();
    times.push_back(ours);
  }
  if (times.empty()) return;
  state.counters["GB_per_second"] = bytes * 1e-9 / Median(times);
  if (!vs_loop.empty()) state.counters["vs_loop"] = Median(vs_loop);
  state.counters["of_bandwidth"] = Median(of_bandwidth);
}

}  // namespace lanewise::bench
