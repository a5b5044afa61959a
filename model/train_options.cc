#include "model/train_options.h"

#include <cstdio>
#include <vector>

#include "model/error.h"
#include "model/nearest.h"

namespace lanewise::model {
namespace {

const std::vector<std::string>& ScheduleNames() {
  static const std::vector<std::string> names = {"constant", "linear", "cosine", "wsd"};
  return names;
}

std::string Text(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", value);
  return text;
}

// False for NaN, so NaN is refused.
void CheckRange(const char* option, std::optional<double> value, double lowest, double highest) {
  if (!value || (*value >= lowest && *value <= highest)) return;
  throw UsageError(std::string(option) + " " + Text(*value) + ": must be from " + Text(lowest) +
                   " to " + Text(highest));
}

void CheckPositive(const char* option, std::optional<double> value, double highest) {
  if (!value || (*value > 0 && *value <= highest)) return;
  throw UsageError(std::string(option) + " " + Text(*value) + ": must be above 0 and at most " +
                   Text(highest));
}

void CheckCount(const char* option, std::optional<int64_t> value, int64_t lowest, int64_t highest) {
  if (!value || (*value >= lowest && *value <= highest)) return;
  // What is beyond all integers was cut to the last of them, which nobody gave.
  using Limits = std::numeric_limits<int64_t>;
  const bool cut = *value == Limits::max() || *value == Limits::min();
  throw UsageError(std::string(option) + (cut ? "" : " " + std::to_string(*value)) +
                   ": must be from " + std::to_string(lowest) + " to " + std::to_string(highest));
}

void CheckName(const char* option, const char* what, const std::string& name,
               const std::vector<std::string>& names) {
  for (const std::string& known : names) {
    if (name == known) return;
  }
  throw UsageError(std::string(option) + ": " + UnknownName(what, name, names));
}

void CheckSizes(const SizeOptions& s) {
  CheckCount("--layers", s.layers, 1, 1024);
  CheckCount("--dim", s.dim, 1, 1 << 16);
  CheckCount("--heads", s.heads, 1, 1 << 16);
  CheckCount("--ctx", s.ctx, 1, 1 << 24);
  CheckCount("--slots", s.slots, 1, 32);
  CheckCount("--decay-rank", s.decay_rank, 1, 4096);
  CheckPositive("--ffn-mult", s.ffn_mult, 64);
  CheckCount("--kv-heads", s.kv_heads, 1, 1 << 16);
  CheckCount("--hidden-dim", s.hidden_dim, 1, 1 << 20);
  CheckCount("--vocab", s.vocab, 1, 1 << 24);
  CheckRange("--rope-theta", s.rope_theta, 1, 1e12);
}

// An option that the chosen model does not have is a misunderstanding, not to be ignored.
void CheckBelongs(const char* option, bool given, const char* model, const std::string& chosen) {
  if (!given || chosen == model) return;
  throw UsageError(std::string(option) + " is an option of the model " + model + "; this is " +
                   chosen + ": leave it out, or add --model " + model);
}

void CheckModelOptions(const TrainOptions& o) {
  const SizeOptions& s = o.sizes;
  CheckBelongs("--slots", s.slots.has_value(), "slot_rnn", o.model);
  CheckBelongs("--decay-rank", s.decay_rank.has_value(), "slot_rnn", o.model);
  CheckBelongs("--ffn-mult", s.ffn_mult.has_value(), "slot_rnn", o.model);
  CheckBelongs("--carry-state", o.carry_state.value_or(false), "slot_rnn", o.model);
  CheckBelongs("--preset", !s.preset.empty(), "llama", o.model);
  CheckBelongs("--kv-heads", s.kv_heads.has_value(), "llama", o.model);
  CheckBelongs("--hidden-dim", s.hidden_dim.has_value(), "llama", o.model);
  CheckBelongs("--rope-theta", s.rope_theta.has_value(), "llama", o.model);
  CheckBelongs("--untied", s.untied, "llama", o.model);
}

void CheckLength(const TrainOptions& o) {
  CheckCount("--steps", o.steps, 1, 1'000'000'000);
  CheckPositive("--epochs", o.epochs, 1e6);
  CheckCount("--tokens", o.tokens, 1, int64_t{1} << 50);
  CheckPositive("--minutes", o.minutes, 1e6);
  CheckCount("--stop-after", o.stop_after, 1, 1'000'000'000);
  const char* first = nullptr;
  const auto once = [&](const char* option, bool given) {
    if (!given) return;
    if (first != nullptr) {
      throw UsageError(std::string(first) + " and " + option +
                       " both say how long to train: give one of them");
    }
    first = option;
  };
  once("--steps", o.steps.has_value());
  once("--epochs", o.epochs.has_value());
  once("--tokens", o.tokens.has_value());
  once("--minutes", o.minutes.has_value());
}

void CheckOptimizer(const TrainOptions& o) {
  CheckPositive("--lr", o.lr, 10);
  CheckRange("--min-lr", o.min_lr, 0, 10);
  if (o.lr && o.min_lr && *o.min_lr > *o.lr) {
    throw UsageError("--min-lr " + Text(*o.min_lr) + ": must be at most --lr " + Text(*o.lr));
  }
  CheckRange("--weight-decay", o.weight_decay, 0, 10);
  CheckRange("--beta1", o.beta1, 0, 0.999999);
  CheckRange("--beta2", o.beta2, 0, 0.999999);
  CheckRange("--clip", o.clip, 0, 1e6);
  CheckCount("--warmup", o.warmup, 0, 1'000'000'000);
  CheckRange("--label-smoothing", o.label_smoothing, 0, 0.99);
  CheckRange("--dropout", o.dropout, 0, 0.99);
}

}  // namespace

void TrainOptions::Validate() const {
  CheckName("--model", "model", model, {"slot_rnn", "llama"});
  if (!sizes.preset.empty()) {
    CheckName("--preset", "preset", sizes.preset, {"260K", "15M", "42M", "110M"});
  }
  CheckName("--init", "scheme of initial values", init, {"default", "seed"});
  CheckName("--dtype", "type of number", dtype, {"float32", "bf16"});
  CheckName("--recompute", "way of recomputing", recompute, {"none", "layer", "auto"});
  CheckModelOptions(*this);
  CheckSizes(sizes);
  CheckLength(*this);
  CheckOptimizer(*this);
  CheckCount("--batch", batch, 1, 1 << 16);
  CheckCount("--grad-accum", grad_accum, 1, 1 << 16);
  CheckRange("--val-fraction", val_fraction, 0, 0.9);
  CheckCount("--eval-every", eval_every, 0, 1'000'000'000);
  CheckCount("--eval-tokens", eval_tokens, 1, int64_t{1} << 50);
  CheckCount("--save-every", save_every, 0, 1'000'000'000);
  CheckCount("--keep", keep, 1, 1'000'000);
}

Schedule ParseSchedule(const std::string& name) {
  const std::vector<std::string>& names = ScheduleNames();
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return static_cast<Schedule>(i);
  }
  throw UsageError("--schedule: " + UnknownName("schedule", name, names));
}

std::string ScheduleName(Schedule schedule) {
  return ScheduleNames().at(static_cast<size_t>(schedule));
}

}  // namespace lanewise::model
