#include "model/gradients.h"

#include <memory>

#include "model/error.h"
#include "runtime/check.h"
#include "runtime/executor.h"

namespace lanewise::model {

GradientResult ComputeGradients(const Model& model, const float* weights,
                                const runtime::Scheduler& scheduler,
                                std::span<const int32_t> tokens, double label_smoothing) {
  if (tokens.size() < 2) throw InputError("gradients need at least two tokens");
  for (const int32_t token : tokens) {
    LW_CHECK(token >= 0 && static_cast<size_t>(token) < model.vocab_size(), "gradients: token ",
             token, " of ", model.vocab_size());
  }
  const size_t steps = tokens.size() - 1;
  ModelGraph m = model.Build({.sequences = 1,
                              .steps = steps,
                              .losses = true,
                              .gradients = true,
                              .label_smoothing = static_cast<float>(label_smoothing)});
  auto graph = std::make_shared<const runtime::Graph>(std::move(m.graph));
  auto plan = std::make_shared<const runtime::Plan>(
      runtime::MakePlan(*graph, scheduler.All().max_workers()));
  runtime::Executor executor(graph, plan);
  GradientResult result;
  result.gradients.assign(model.params().buffer_size(), 0.0F);
  std::vector<float> nll(steps);
  std::vector<float> loss(steps);
  const float scale = 1.0F / static_cast<float>(steps);
  executor.Bind(m.tokens, tokens.data());
  executor.Bind(m.targets, tokens.data() + 1);
  executor.Bind(m.scale, &scale);
  executor.Bind(m.nll, nll.data());
  executor.Bind(m.loss, loss.data());
  executor.BindParameters(weights, result.gradients.data());
  executor.Run(scheduler.All());
  for (size_t t = 0; t < steps; ++t) {
    result.loss += static_cast<double>(loss[t]);
    result.cross_entropy += static_cast<double>(nll[t]);
  }
  result.loss /= static_cast<double>(steps);
  result.cross_entropy /= static_cast<double>(steps);
  return result;
}

}  // namespace lanewise::model
