// Speed of the real paths on random tokens, with this machine's peaks probed in between.
#ifndef LANEWISE_MODEL_BENCHMARK_H_
#define LANEWISE_MODEL_BENCHMARK_H_

#include <cstdint>
#include <functional>

#include "model/model.h"
#include "model/train_options.h"
#include "runtime/parallel.h"
#include "runtime/profiler.h"

namespace lanewise::model {

struct BenchmarkOptions {
  double seconds = 4;        // of measuring, at least three rounds
  int64_t steps = 0;         // rounds; 0: by seconds
  runtime::Profiler* profiler = nullptr;
  // GFLOP/s and GB/s of all threads now; called between the rounds.
  std::function<double()> peak_gflops;
  std::function<double()> read_bandwidth;
};

// Medians over the rounds; mfu is the median of each round's share of the peaks around it.
struct BenchmarkResult {
  double tokens_per_second = 0;
  double gflops = 0;
  double peak_gflops = 0;
  double mfu = 0;
  double bandwidth_gbs = 0;       // weights read (decode), else 0
  double peak_bandwidth_gbs = 0;  // decode
  double bandwidth_share = 0;     // of the read bandwidth, decode
  uint64_t peak_memory_bytes = 0;
  int64_t rounds = 0;
};

// Whole training steps: gradients, clipping, AdamW.
BenchmarkResult BenchmarkTraining(const TrainPlan& plan, const runtime::Scheduler& scheduler,
                                  const BenchmarkOptions& options);
// A prompt of `tokens` fed from an empty state.
BenchmarkResult BenchmarkPrefill(const Model& model, size_t tokens,
                                 const runtime::Scheduler& scheduler,
                                 const BenchmarkOptions& options);
// One token at a time for each of `streams` sequences, `tokens` of them a round.
BenchmarkResult BenchmarkDecoding(const Model& model, size_t streams, size_t tokens,
                                  const runtime::Scheduler& scheduler,
                                  const BenchmarkOptions& options);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_BENCHMARK_H_
