// Runs a planned graph.
#ifndef LANEWISE_RUNTIME_EXECUTOR_H_
#define LANEWISE_RUNTIME_EXECUTOR_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "runtime/arena.h"
#include "runtime/graph.h"
#include "runtime/parallel.h"
#include "runtime/plan.h"
#include "runtime/profiler.h"

namespace lanewise::runtime {

// One instance of a graph with memory. Several executors may share graph and plan (the shards of a
// batch), each with its own arena and bindings. Run does not allocate.
class Executor {
 public:
  // Throws OutOfMemory when the arena cannot be had.
  Executor(std::shared_ptr<const Graph> graph, std::shared_ptr<const Plan> plan);

  // Gives an external tensor its memory: rows * cols elements without gaps, alive while Run uses
  // it.
  void Bind(TensorId id, const void* data);
  // The flat buffers that parameter and gradient offsets refer to. gradients may be null without
  // training.
  void BindParameters(const Weights& weights, float* gradients);

  // Runs all nodes, with no more workers than the plan was made for. profiler may be null; `track`
  // labels its zones.
  void Run(const Parallel& parallel, Profiler* profiler = nullptr, int track = 0);

  const Graph& graph() const { return *graph_; }
  const Plan& plan() const { return *plan_; }

 private:
  void RunNode(size_t position, const Parallel& parallel);

  std::shared_ptr<const Graph> graph_;
  std::shared_ptr<const Plan> plan_;
  Arena arena_;
  std::vector<Tensor> tensors_;  // by tensor id, with memory
  std::vector<Tensor> args_;     // the running node's inputs and outputs
};

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_EXECUTOR_H_
