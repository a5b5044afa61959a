// Initial values of slot_rnn. What each choice is worth is measured in model/slot_rnn/README.md.
#include <cmath>
#include <string_view>

#include "model/error.h"
#include "model/initializer.h"
#include "model/slot_rnn/slot_rnn.h"

namespace lanewise::model {

namespace {

bool EndsWith(std::string_view name, std::string_view end) { return name.ends_with(end); }

// What both schemes share: norms and token shift. True when it was one of these.
bool InitializeCommon(const Initializer& fill, const Param& p) {
  if (EndsWith(p.name, ".bias")) {
    fill.PerColumn(p, [](size_t) { return 0.0; });
  } else if (EndsWith(p.name, "weight")) {
    fill.PerColumn(p, [](size_t) { return 1.0; });
  } else if (EndsWith(p.name, "time_shift_w1")) {
    fill.Uniform(p, 0.3, 0.7);
  } else if (EndsWith(p.name, "time_shift_w2")) {
    fill.Uniform(p, 0.1, 0.3);
  } else if (EndsWith(p.name, "time_shift_w4")) {
    fill.Uniform(p, 0.0, 0.2);
  } else if (p.name.find("time_mix_") != std::string::npos || EndsWith(p.name, "channel_mix")) {
    fill.PerColumn(p, [](size_t) { return 0.5; });
  } else {
    return false;
  }
  return true;
}

double LayerOf(const Param& p) {
  return p.name.starts_with("layers.") ? std::stod(p.name.substr(7)) : 0.0;
}

}  // namespace

void SlotRnn::Initialize(std::string_view scheme, uint64_t seed, std::span<float> weights) const {
  if (scheme != "default" && scheme != "seed") {
    throw UsageError("--init: \"" + std::string(scheme) + "\" is neither default nor seed");
  }
  const Initializer fill(params_, seed, weights);
  const bool as_seed = scheme == "seed";
  const auto layers = static_cast<double>(config_.layers);
  const size_t head_width = config_.dim / config_.heads;
  const auto head = [&](size_t c) {
    const size_t index = c / head_width;
    return static_cast<double>(index);
  };
  const auto in_head = [&](size_t c) { return static_cast<double>(c % head_width); };
  for (const Param& p : params_.params()) {
    if (InitializeCommon(fill, p)) continue;
    const double l = LayerOf(p);
    const bool gate = p.name.find("mem_gate") != std::string::npos;
    if (EndsWith(p.name, "decay_base")) {
      // The default spreads memories from one token to as long as the slope lets them be over each
      // head.
      const double step = head_width > 1 ? 7.0 / static_cast<double>(head_width - 1) : 0.0;
      fill.PerColumn(p, [&](size_t c) {
        return as_seed ? 1.5 - 0.1 * l - 0.2 * head(c) : -1.0 + step * in_head(c);
      });
    } else if (EndsWith(p.name, "time_first")) {
      fill.PerColumn(p, [&](size_t c) { return -3 + 0.3 * l + 0.5 * head(c); });
    } else if (p.name == "emb" || (as_seed && p.name == "head")) {
      fill.Normal(p, 0.02);
    } else if (as_seed) {
      const bool low_rank = gate || p.name.find("decay_lora") != std::string::npos;
      fill.Normal(p, low_rank ? 0.01 : 0.02 / std::sqrt(layers));
    } else if (gate) {
      fill.Normal(p, 0.1);
    } else {
      const bool into_residual = EndsWith(p.name, "Wo") || EndsWith(p.name, "ffn_down");
      const double fan_in = static_cast<double>(p.rows) * (into_residual ? 2 * layers : 1);
      fill.Normal(p, 0.7 / std::sqrt(fan_in));
    }
  }
}

}  // namespace lanewise::model
