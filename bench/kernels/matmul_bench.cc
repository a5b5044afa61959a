// One core: each shape of bench/shapes beside the FMA peak and the libraries that are installed, in
// turns. Time is the thread's CPU time, so other programs' turns do not count.
#include "kernels/matmul.h"

#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "bench/kernels/matmul_peers.h"
#include "kernels/bfloat16.h"
#include "kernels/peak.h"

namespace lanewise::kernels {
namespace {

double Seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double Median(std::vector<double> v) {
  std::ranges::sort(v);
  return v.empty() ? 0.0 : v[v.size() / 2];
}

double PeakFlops(double (*probe)(size_t)) {
  const double start = Seconds();
  const double flops = probe(20000);
  return flops / (Seconds() - start);
}

struct Shape {
  std::string form;
  size_t m, n, k;
};

// A product, its memory, and the ways to compute it.
class Product {
 public:
  explicit Product(const Shape& s)
      : shape_(s), a_(s.m * s.k), b_(s.k * s.n), c_(s.m * s.n), scratch_(Scratch(s)) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    for (float& x : a_) x = uniform(random);
    for (float& x : b_) x = uniform(random);
    const bool ta = s.form[0] == 'T';
    const bool tb = s.form[1] == 'T';
    args_.a = ta ? MatmulOperand{a_.data(), 1, s.m} : MatmulOperand{a_.data(), s.k, 1};
    args_.b.strided = tb ? MatmulOperand{b_.data(), 1, s.k} : MatmulOperand{b_.data(), s.n, 1};
    args_.c = c_.data();
    args_.c_stride = s.n;
    args_.m = s.m;
    args_.n = s.n;
    args_.k = s.k;
    // A weight gradient accumulates.
    args_.epilogue = ta ? MatmulEpilogue::kAccumulate : MatmulEpilogue::kOverwrite;
  }

  double Flops() const {
    return 2.0 * static_cast<double>(shape_.m) * static_cast<double>(shape_.n) *
           static_cast<double>(shape_.k);
  }
  void Run() { Matmul(args_, scratch_); }
  // The same product with operands rounded to bf16; weights are stored so, the right operand of a
  // weight gradient is not.
  void RunBf16() {
    if (half_.empty()) {
      half_.resize(b_.size());
      RoundToBFloat16(b_, half_);
      scratch_.resize(MatmulScratchBytes(shape_.m, shape_.n, shape_.k, true));
    }
    MatmulArgs args = args_;
    args.bf16 = true;
    if (shape_.form[0] != 'T') args.b.bf16 = half_.data();
    Matmul(args, scratch_);
  }
  void RunPeer(const bench::Sgemm& sgemm) {
    sgemm({shape_.form[0] == 'T', shape_.form[1] == 'T', shape_.m, shape_.n, shape_.k, a_.data(),
           b_.data(), args_.epilogue == MatmulEpilogue::kAccumulate ? 1.0f : 0.0f, c_.data()});
  }

 private:
  static size_t Scratch(const Shape& s) { return MatmulScratchBytes(s.m, s.n, s.k); }

  Shape shape_;
  std::vector<float> a_, b_, c_;
  std::vector<BFloat16> half_;
  std::vector<std::byte> scratch_;
  MatmulArgs args_;
};

// Operations per second of `repeats` calls after one to warm the caches.
template <typename Fn>
double Rate(double flops, size_t repeats, Fn&& fn) {
  fn();
  const double start = Seconds();
  for (size_t i = 0; i < repeats; ++i) fn();
  return flops * static_cast<double>(repeats) / (Seconds() - start);
}

void BenchMatmul(benchmark::State& state, const Shape& shape) {
  Product product(shape);
  const double flops = product.Flops();
  const auto repeats = static_cast<size_t>(std::clamp(1e9 / flops, 1.0, 1e6));
  std::vector<double> rates, of_peak, bf16_rates, bf16_of_peak;
  std::vector<std::vector<double>> ratios(bench::Peers().size());
  for (auto _ : state) {
    const double before = PeakFlops(RunFmaProbe);
    const double rate = Rate(flops, repeats, [&] { product.Run(); });
    const double peak = (before + PeakFlops(RunFmaProbe)) / 2;
    rates.push_back(rate);
    of_peak.push_back(rate / peak);
    for (size_t i = 0; i < ratios.size(); ++i) {
      const bench::Sgemm& sgemm = bench::Peers()[i].sgemm;
      ratios[i].push_back(rate / Rate(flops, repeats, [&] { product.RunPeer(sgemm); }));
    }
    bf16_rates.push_back(Rate(flops, repeats, [&] { product.RunBf16(); }));
    bf16_of_peak.push_back(bf16_rates.back() / PeakFlops(RunBf16Probe));
    state.SetIterationTime(flops / rate);
  }
  state.counters["gflops"] = Median(rates) * 1e-9;
  state.counters["of_peak"] = Median(of_peak);
  state.counters["bf16_gflops"] = Median(bf16_rates) * 1e-9;
  state.counters["bf16_of_peak"] = Median(bf16_of_peak);
  for (size_t i = 0; i < ratios.size(); ++i) {
    state.counters["vs_" + bench::Peers()[i].name] = Median(ratios[i]);
  }
}

// bench/shapes/*.txt, or the folder that LANEWISE_SHAPES names.
int RegisterShapes() {
  const char* given = std::getenv("LANEWISE_SHAPES");
  const std::filesystem::path folder =
      given != nullptr ? given : LANEWISE_SOURCE_DIR "/bench/shapes";
  std::error_code error;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".txt") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  for (const auto& file : files) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
      std::istringstream words(line);
      Shape s;
      if (line.starts_with('#') || !(words >> s.form >> s.m >> s.n >> s.k)) continue;
      const std::string name = "matmul/" + file.stem().string() + "/" + s.form + "/" +
                               std::to_string(s.m) + "x" + std::to_string(s.n) + "x" +
                               std::to_string(s.k);
      benchmark::RegisterBenchmark(name.c_str(),
                                   [s](benchmark::State& state) { BenchMatmul(state, s); })
          ->UseManualTime()
          ->Iterations(9)
          ->Unit(benchmark::kMicrosecond);
    }
  }
  return 0;
}

const int kRegistered = RegisterShapes();

}  // namespace
}  // namespace lanewise::kernels
