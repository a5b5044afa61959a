// One core: each shape of bench/shapes beside the FMA peak and the libraries that are installed, in
// turns. Time is the thread's CPU time, so other programs' turns do not count.
#include "kernels/matmul.h"

#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "bench/kernels/matmul_peers.h"
#include "bench/kernels/matmul_product.h"
#include "kernels/peak.h"

namespace lanewise::kernels {
namespace {

double Seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double PeakFlops(double (*probe)(size_t)) {
  const double start = Seconds();
  const double flops = probe(20000);
  return flops / (Seconds() - start);
}

// Operations per second of `repeats` calls after one to warm the caches.
template <typename Fn>
double Rate(double flops, size_t repeats, Fn&& fn) {
  fn();
  const double start = Seconds();
  for (size_t i = 0; i < repeats; ++i) fn();
  return flops * static_cast<double>(repeats) / (Seconds() - start);
}

void BenchMatmul(benchmark::State& state, const bench::Shape& shape) {
  bench::Product product(shape);
  const double flops = product.Flops();
  const auto repeats = static_cast<size_t>(std::clamp(1e9 / flops, 1.0, 1e6));
  bench::Rounds float32, bf16;
  std::vector<std::vector<double>> ratios(bench::Peers().size());
  std::vector<double> bf16_ratios;
  for (auto _ : state) {
    const double before = PeakFlops(RunFmaProbe);
    const double rate = Rate(flops, repeats, [&] { product.Run(); });
    float32.Add(rate, (before + PeakFlops(RunFmaProbe)) / 2);
    for (size_t i = 0; i < ratios.size(); ++i) {
      const bench::Sgemm& sgemm = bench::Peers()[i].sgemm;
      ratios[i].push_back(rate / Rate(flops, repeats, [&] { product.RunPeer(sgemm); }));
    }
    const double bf16_rate = Rate(flops, repeats, [&] { product.RunBf16(); });
    bf16.Add(bf16_rate, PeakFlops(RunBf16Probe));
    if (product.RunPeerBf16()) {
      bf16_ratios.push_back(bf16_rate / Rate(flops, repeats, [&] { product.RunPeerBf16(); }));
    }
    state.SetIterationTime(flops / rate);
  }
  bench::SetCounters(state, float32, bf16, ratios, bf16_ratios);
}

const int kRegistered = bench::RegisterShapes("matmul", BenchMatmul);

}  // namespace
}  // namespace lanewise::kernels
