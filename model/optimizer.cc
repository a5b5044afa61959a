#include "model/optimizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/adamw.h"

namespace lanewise::model {

Optimizer::Optimizer(const ParamSet& params, const runtime::Scheduler& scheduler)
    : scheduler_(scheduler),
      m_("optimizer moments", params.buffer_size() * sizeof(float)),
      v_("optimizer moments", params.buffer_size() * sizeof(float)) {
  constexpr size_t kPiece = size_t{1} << 15;
  for (const ParamBlock& block : params.blocks()) {
    for (size_t done = 0; done < block.Count(); done += kPiece) {
      pieces_.push_back({block.offset + done, std::min(kPiece, block.Count() - done), block.decay});
    }
  }
}

void Optimizer::Update(int64_t step, const AdamWOptions& options, double grad_scale,
                       std::span<float> weights, std::span<float> gradients,
                       std::span<kernels::BFloat16> rounded) {
  kernels::AdamWStep update{
      .lr = options.lr,
      .beta1 = options.beta1,
      .beta2 = options.beta2,
      .eps = options.eps,
      .bias_correction1 = 1 - std::pow(options.beta1, static_cast<double>(step)),
      .bias_correction2 = 1 - std::pow(options.beta2, static_cast<double>(step)),
      .grad_scale = grad_scale,
      .zero_grads = true};
  // Small vectors come many at a time, so that a task is worth its start.
  constexpr size_t kTaskFloats = size_t{1} << 15;
  size_t total = 0;
  for (const Piece& p : pieces_) total += p.count;
  const size_t tasks = std::max<size_t>(1, std::min(pieces_.size(), total / kTaskFloats));
  scheduler_.All().For(tasks, [&](size_t task, size_t) {
    const size_t begin = pieces_.size() * task / tasks;
    const size_t end = pieces_.size() * (task + 1) / tasks;
    kernels::AdamWStep mine = update;
    for (size_t i = begin; i < end; ++i) {
      const Piece& p = pieces_[i];
      mine.weight_decay = p.decay ? options.weight_decay : 0;
      kernels::AdamWUpdate(
          mine, weights.subspan(p.offset, p.count), gradients.subspan(p.offset, p.count),
          m_.Floats().subspan(p.offset, p.count), v_.Floats().subspan(p.offset, p.count),
          rounded.empty() ? rounded : rounded.subspan(p.offset, p.count));
    }
  });
}

}  // namespace lanewise::model
