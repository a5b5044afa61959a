// An operation: one coarse, fused step of a graph. Each kind is a small class in runtime/ops/.
#ifndef LANEWISE_RUNTIME_OP_H_
#define LANEWISE_RUNTIME_OP_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/parallel.h"
#include "runtime/tensor.h"

namespace lanewise::runtime {

class GradBuilder;

// What a node works on. Optional tensors that are absent, or external and not bound, have null
// data. The workspace is private to the node and uninitialized; it has the bytes that
// WorkspaceBytes asked for, aligned to 64.
struct OpArgs {
  const Parallel& parallel;
  std::span<const Tensor> in;
  std::span<const Tensor> out;
  std::span<std::byte> workspace;
};

// For the profiler: work and memory traffic of one run.
struct OpCost {
  double flops = 0;
  double bytes = 0;
};

class Op;

struct Node {
  std::shared_ptr<const Op> op;
  std::vector<TensorId> inputs;
  std::vector<TensorId> outputs;  // overwritten, except Role::kGradient and in-out externals
  int layer = -1;                 // for recomputation by layer; -1 outside any
};

class Op {
 public:
  virtual ~Op() = default;
  virtual std::string_view name() const = 0;
  // Shapes were checked when the node was built. No allocation on the heap.
  virtual void Run(const OpArgs& args) const = 0;
  // Scratch that Run needs when `parallel.max_workers()` is `workers`. Tensors have shapes but no
  // data.
  virtual size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor> out,
                                size_t workers) const;
  // Whether an external input or output may be left unbound in a run: it then has null data.
  virtual bool OptionalInput(size_t input) const;
  virtual bool OptionalOutput(size_t output) const;
  // The input whose memory output `output` may take over when it is not needed later, or -1.
  virtual int InPlaceInput(size_t output) const;
  // Appends the nodes that turn the gradients of node.outputs into gradients of node.inputs.
  // The default refuses: the operation has no gradient.
  virtual void Differentiate(GradBuilder& builder, const Node& node) const;
  // The default counts each tensor once and no arithmetic.
  virtual OpCost Cost(std::span<const Tensor> in, std::span<const Tensor> out) const;
};

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OP_H_
