#include "runtime/executor.h"

#include <algorithm>
#include <utility>

#include "runtime/check.h"

namespace lanewise::runtime {

Executor::Executor(std::shared_ptr<const Graph> graph, std::shared_ptr<const Plan> plan)
    : graph_(std::move(graph)), plan_(std::move(plan)), arena_("activations", plan_->arena_bytes) {
  for (size_t t = 0; t < graph_->tensors().size(); ++t) {
    const TensorInfo& info = graph_->tensors()[t];
    Tensor tensor = graph_->Shape({static_cast<int32_t>(t)});
    if (plan_->tensor_offset[t] != Plan::kNone) {
      tensor.data = arena_.data() + plan_->tensor_offset[t];
    }
    if (info.role == Role::kConstant) tensor.data = const_cast<void*>(info.constant);
    tensors_.push_back(tensor);
  }
  size_t most = 0;
  for (const Node& node : graph_->nodes()) {
    most = std::max(most, node.inputs.size() + node.outputs.size());
  }
  args_.resize(most);
}

void Executor::Bind(TensorId id, const void* data) {
  const TensorInfo& info = graph_->Info(id);
  LW_CHECK(info.role == Role::kExternal, info.name, ": only external tensors are bound");
  tensors_[static_cast<size_t>(id.index)].data = const_cast<void*>(data);
}

void Executor::BindParameters(const Weights& weights, float* gradients) {
  for (size_t t = 0; t < tensors_.size(); ++t) {
    const TensorInfo& info = graph_->tensors()[t];
    if (info.role == Role::kParameter) {
      if (info.dtype == DType::kBFloat16) {
        LW_CHECK(weights.half != nullptr, info.name, ": no bf16 weights were bound");
        tensors_[t].data = const_cast<kernels::BFloat16*>(weights.half + info.offset);
      } else {
        LW_CHECK(weights.full != nullptr, info.name, ": no weights were bound");
        tensors_[t].data = const_cast<float*>(weights.full + info.offset);
      }
    } else if (info.role == Role::kGradient) {
      LW_CHECK(gradients != nullptr, info.name, ": no gradient buffer was bound");
      tensors_[t].data = gradients + info.offset;
    }
  }
}

void Executor::RunNode(size_t position, const Parallel& parallel) {
  const Node& node = graph_->nodes()[plan_->nodes[position]];
  size_t n = 0;
  const auto resolve = [&](const std::vector<TensorId>& ids, bool (Op::*optional)(size_t) const) {
    for (size_t i = 0; i < ids.size(); ++i, ++n) {
      args_[n] = ids[i] ? tensors_[static_cast<size_t>(ids[i].index)] : Tensor{};
      if (!ids[i] || args_[n].data != nullptr) continue;
      const TensorInfo& info = graph_->Info(ids[i]);
      LW_CHECK(info.role == Role::kExternal && (*node.op.*optional)(i), node.op->name(), ": ",
               info.name, " has no memory: it was not bound");
      args_[n] = Tensor{};
    }
  };
  resolve(node.inputs, &Op::OptionalInput);
  resolve(node.outputs, &Op::OptionalOutput);
  const std::span<const Tensor> all(args_.data(), n);
  node.op->Run({.parallel = parallel,
                .in = all.first(node.inputs.size()),
                .out = all.subspan(node.inputs.size()),
                .workspace = {arena_.data() + plan_->workspace_offset[position],
                              plan_->workspace_bytes[position]}});
}

void Executor::Run(const Parallel& parallel, Profiler* profiler, int track) {
  LW_CHECK(parallel.max_workers() <= plan_->workers, "executor: a run with ",
           parallel.max_workers(), " workers, its plan is made for ", plan_->workers);
  const ScopedFlushToZero flush;
  for (size_t p = 0; p < plan_->nodes.size(); ++p) {
    if (profiler == nullptr) {
      RunNode(p, parallel);
      continue;
    }
    const auto begin = Profiler::Clock::now();
    RunNode(p, parallel);
    const auto end = Profiler::Clock::now();
    const Op& op = *graph_->nodes()[plan_->nodes[p]].op;
    const size_t inputs = graph_->nodes()[plan_->nodes[p]].inputs.size();
    const size_t outputs = graph_->nodes()[plan_->nodes[p]].outputs.size();
    const std::span<const Tensor> all(args_.data(), inputs + outputs);
    profiler->Record(op.name(), track, begin, end, op.Cost(all.first(inputs), all.subspan(inputs)));
  }
}

}  // namespace lanewise::runtime
