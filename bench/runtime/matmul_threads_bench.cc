// All threads (or LANEWISE_THREADS): each shape of bench/shapes beside the FMA peak of as many
// threads and the libraries that are installed, in turns, in wall-clock time.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "bench/kernels/matmul_product.h"
#include "kernels/peak.h"
#include "runtime/matmul.h"
#include "runtime/parallel.h"

namespace lanewise::runtime {
namespace {

using Clock = std::chrono::steady_clock;

// So long the peers' threads wait for more work in a busy loop.
constexpr std::chrono::milliseconds kSpinning{80};

const Scheduler& Threads() {
  static const Scheduler scheduler([] {
    const char* given = std::getenv("LANEWISE_THREADS");
    const size_t threads = given != nullptr ? std::strtoul(given, nullptr, 10) : 0;
    return threads;
  }());
  return scheduler;
}

// Operations per second of `repeats` calls after one to warm the caches.
template <typename Fn>
double Rate(double flops, size_t repeats, Fn&& fn) {
  fn();
  const Clock::time_point start = Clock::now();
  for (size_t i = 0; i < repeats; ++i) fn();
  return flops * static_cast<double>(repeats) /
         std::chrono::duration<double>(Clock::now() - start).count();
}

// Multiply-adds on all threads for some tens of milliseconds: an average, as the product's.
double PeakFlops(const Parallel& parallel, double (*probe)(size_t)) {
  std::vector<double> done(Threads().threads());
  const Clock::time_point start = Clock::now();
  parallel.For(done.size(), [&](size_t task, size_t) { done[task] = probe(200000); });
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return std::accumulate(done.begin(), done.end(), 0.0) / seconds;
}

void BenchMatmul(benchmark::State& state, const bench::Shape& shape) {
  bench::Product product(shape);
  const Parallel parallel = Threads().All();
  const auto bytes = [&](bool half) {
    return MatmulScratchBytes(shape.m, shape.n, shape.k, parallel.max_workers(), half);
  };
  std::vector<std::byte> scratch(std::max(bytes(false), bytes(true)));
  const double flops = product.Flops();
  const auto repeats = static_cast<size_t>(std::clamp(2e9 / flops, 1.0, 1e6));
  bench::Rounds float32, bf16;
  std::vector<std::vector<double>> ratios(bench::Peers().size());
  std::vector<double> bf16_ratios;
  for (auto _ : state) {
    const double before = PeakFlops(parallel, kernels::RunFmaProbe);
    const double rate = Rate(flops, repeats, [&] { Matmul(parallel, product.args(), scratch); });
    float32.Add(rate, (before + PeakFlops(parallel, kernels::RunFmaProbe)) / 2);
    const double bf16_rate =
        Rate(flops, repeats, [&] { Matmul(parallel, product.Bf16Args(), scratch); });
    bf16.Add(bf16_rate, PeakFlops(parallel, kernels::RunBf16Probe));
    if (product.RunPeerBf16()) {
      bf16_ratios.push_back(bf16_rate / Rate(flops, repeats, [&] { product.RunPeerBf16(); }));
      std::this_thread::sleep_for(kSpinning);
    }
    for (size_t i = 0; i < ratios.size(); ++i) {
      const bench::Sgemm& sgemm = bench::Peers()[i].sgemm;
      ratios[i].push_back(rate / Rate(flops, repeats, [&] { product.RunPeer(sgemm); }));
      std::this_thread::sleep_for(kSpinning);
    }
    state.SetIterationTime(flops / rate);
  }
  bench::SetCounters(state, float32, bf16, ratios, bf16_ratios);
}

int Register() {
  const std::string threads = std::to_string(Threads().threads());
  setenv("OPENBLAS_NUM_THREADS", threads.c_str(), 0);
  setenv("OMP_NUM_THREADS", threads.c_str(), 0);
  return bench::RegisterShapes("matmul_threads", BenchMatmul);
}

const int kRegistered = Register();

}  // namespace
}  // namespace lanewise::runtime
