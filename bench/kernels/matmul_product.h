// The products of bench/shapes/*.txt, with their memory.
#ifndef LANEWISE_BENCH_KERNELS_MATMUL_PRODUCT_H_
#define LANEWISE_BENCH_KERNELS_MATMUL_PRODUCT_H_

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/kernels/matmul_peers.h"
#include "bench/kernels/onednn_bf16.h"
#include "hwy/aligned_allocator.h"
#include "kernels/bfloat16.h"
#include "kernels/matmul.h"

namespace lanewise::bench {

using kernels::BFloat16;
using kernels::Matmul;
using kernels::MatmulArgs;
using kernels::MatmulEpilogue;
using kernels::MatmulOperand;
using kernels::MatmulScratchBytes;

struct Shape {
  const char* file;  // without .txt
  const char* form;
  size_t m, n, k;

  std::string Name() const {
    return std::string(file) + "/" + form + "/" + std::to_string(m) + "x" + std::to_string(n) +
           "x" + std::to_string(k);
  }
};

inline constexpr Shape kShapes[] = {
#include "bench/shapes.inc"
};

inline double Median(std::vector<double> v) {
  std::ranges::sort(v);
  return v.empty() ? 0.0 : v[v.size() / 2];
}

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
  const MatmulArgs& args() const { return args_; }
  void Run() { Matmul(args_, scratch_); }
  // The same product with operands rounded to bf16; weights are stored so, the right operand of a
  // weight gradient is not.
  const MatmulArgs& Bf16Args() {
    if (!half_.empty()) return bf16_args_;
    half_.resize(b_.size());
    RoundToBFloat16(b_, half_);
    bf16_args_ = args_;
    bf16_args_.bf16 = true;
    if (shape_.form[0] != 'T') bf16_args_.b.bf16 = half_.data();
    return bf16_args_;
  }
  void RunBf16() { Matmul(Bf16Args(), scratch_); }
  // The same by oneDNN; false if there is none, or it has no such product on this CPU.
  bool RunPeerBf16() {
#if LANEWISE_BENCH_HAS_DLOPEN
    if (!peer_tried_) {
      peer_tried_ = true;
      OneDnn* dnn = OneDnn::Get();
      try {
        if (dnn != nullptr) peer_ = std::make_unique<OneDnnBf16>(*dnn, Bf16Args());
      } catch (const std::runtime_error&) {
        peer_ = nullptr;
      }
    }
    if (peer_ == nullptr) return false;
    peer_->Run();
    return true;
#else
    return false;
#endif
  }
  void RunPeer(const Sgemm& sgemm) {
    sgemm({shape_.form[0] == 'T', shape_.form[1] == 'T', shape_.m, shape_.n, shape_.k, a_.data(),
           b_.data(), args_.epilogue == MatmulEpilogue::kAccumulate ? 1.0f : 0.0f, c_.data()});
  }

 private:
  static size_t Scratch(const Shape& s) {
    return std::max(MatmulScratchBytes(s.m, s.n, s.k), MatmulScratchBytes(s.m, s.n, s.k, true));
  }

  Shape shape_;
  // As in the models; without it every vector of an operand would lie in two cache lines.
  hwy::AlignedVector<float> a_, b_, c_;
  hwy::AlignedVector<BFloat16> half_;
  std::vector<std::byte> scratch_;
  MatmulArgs args_, bf16_args_;
#if LANEWISE_BENCH_HAS_DLOPEN
  bool peer_tried_ = false;
  std::unique_ptr<OneDnnBf16> peer_;
#endif
};

// Registers fn(state, shape) for every shape, as PREFIX/SHAPE.
template <typename Fn>
int RegisterShapes(const std::string& prefix, Fn fn) {
  for (const Shape& s : kShapes) {
    benchmark::RegisterBenchmark((prefix + "/" + s.Name()).c_str(),
                                 [s, fn](benchmark::State& state) { fn(state, s); })
        ->UseManualTime()
        ->Iterations(9)
        ->Unit(benchmark::kMicrosecond);
  }
  return 0;
}

// What the rounds measured: operations per second, and their share of the unit's peak.
struct Rounds {
  std::vector<double> rates, of_peak;

  void Add(double rate, double peak) {
    rates.push_back(rate);
    of_peak.push_back(rate / peak);
  }
};

// Medians of the rounds: speed and share of the peak in both types, times each of Peers(), and in
// bf16 times oneDNN.
inline void SetCounters(benchmark::State& state, const Rounds& float32, const Rounds& bf16,
                        const std::vector<std::vector<double>>& ratios,
                        const std::vector<double>& bf16_ratios) {
  state.counters["gflops"] = Median(float32.rates) * 1e-9;
  state.counters["of_peak"] = Median(float32.of_peak);
  state.counters["bf16_gflops"] = Median(bf16.rates) * 1e-9;
  state.counters["bf16_of_peak"] = Median(bf16.of_peak);
  for (size_t i = 0; i < ratios.size(); ++i) {
    state.counters["vs_" + Peers()[i].name] = Median(ratios[i]);
  }
#if LANEWISE_BENCH_HAS_DLOPEN
  if (!bf16_ratios.empty()) {
    state.counters["bf16_vs_onednn"] = Median(bf16_ratios);
    state.SetLabel("oneDNN " + OneDnn::Get()->version());
  }
#endif
}

}  // namespace lanewise::bench

#endif  // LANEWISE_BENCH_KERNELS_MATMUL_PRODUCT_H_
