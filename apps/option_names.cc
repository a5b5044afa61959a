// What was meant by a name that is no option's.
#include <algorithm>
#include <utility>

#include "apps/options.h"
#include "model/nearest.h"

namespace lanewise::apps {

std::string Nearest(std::string text, const std::vector<std::string>& candidates) {
  std::replace(text.begin(), text.end(), '_', '-');
  // "--temperature" for "--temp".
  for (const std::string& candidate : candidates) {
    if (candidate.size() >= 3 && text.starts_with(candidate)) return candidate;
  }
  return model::NearestName(text, candidates);
}

std::string NearestOption(std::string name, const std::vector<std::string>& candidates) {
  // As in PyTorch programs, nanoGPT and llama.cpp.
  static constexpr std::pair<std::string_view, std::string_view> kOthers[] = {
      {"learning-rate", "lr"},
      {"max-lr", "lr"},
      {"batch-size", "batch"},
      {"bs", "batch"},
      {"gradient-accumulation-steps", "grad-accum"},
      {"block-size", "ctx"},
      {"context", "ctx"},
      {"context-length", "ctx"},
      {"seq-len", "ctx"},
      {"seq-length", "ctx"},
      {"sequence-length", "ctx"},
      {"max-seq-len", "ctx"},
      {"n-layer", "layers"},
      {"num-layers", "layers"},
      {"n-embd", "dim"},
      {"d-model", "dim"},
      {"hidden-size", "dim"},
      {"n-head", "heads"},
      {"num-heads", "heads"},
      {"max-iters", "steps"},
      {"iters", "steps"},
      {"iterations", "steps"},
      {"n-predict", "tokens"},
      {"max-new-tokens", "tokens"},
      {"n", "tokens"},
      {"p", "prompt"},
      {"f", "prompt-file"},
      {"file", "prompt-file"},
      {"i", "interactive"},
      {"s", "seed"},
      {"j", "threads"},
      {"t", "threads"},
      {"num-threads", "threads"},
      {"workers", "threads"},
      {"input", "data"},
      {"dataset", "data"},
      {"text", "data"},
      {"o", "out"},
      {"output", "out"},
      {"output-dir", "out"},
      {"grad-clip", "clip"},
      {"eval-interval", "eval-every"},
      {"save-interval", "save-every"},
      {"precision", "dtype"},
  };
  std::replace(name.begin(), name.end(), '_', '-');
  for (const auto& [other, ours] : kOthers) {
    if (name == other && std::ranges::find(candidates, ours) != candidates.end()) {
      return std::string(ours);
    }
  }
  return Nearest(name, candidates);
}

}  // namespace lanewise::apps
