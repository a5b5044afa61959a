#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/data.h"
#include "model/error.h"
#include "model/train_options.h"

namespace lanewise::model {
namespace {

constexpr double kDecayShare = 0.2;  // of all steps, at the end of a WSD schedule

// Share of the way from lr (0) to min_lr (1) when `progress` of the steps after the warm-up is
// done.
double Fall(Schedule schedule, double progress, double decay_progress) {
  switch (schedule) {
    case Schedule::kConstant:
      return 0;
    case Schedule::kLinear:
      return progress;
    case Schedule::kCosine:
      return 0.5 - 0.5 * std::cos(std::numbers::pi * progress);
    case Schedule::kWsd:
      return std::sqrt(decay_progress);
  }
  return 0;
}

double GetNumberIn(const Json& json, const char* field, double lowest, double highest,
                   const std::string& where) {
  const double value = GetNumber(json, field, where);
  if (value >= lowest && value <= highest) return value;
  throw InputError(where + ": \"" + field + "\" must be from " + Json(lowest).dump() + " to " +
                   Json(highest).dump() + ", is " + Json(value).dump());
}

Schedule GetSchedule(const Json& json, const std::string& where) {
  try {
    return ParseSchedule(GetString(json, "schedule", where));
  } catch (const UsageError& error) {
    throw InputError(where + ": \"schedule\": " + error.what());
  }
}

// All 64 bits, which GetInteger does not take.
uint64_t GetSeed(const Json& json, const std::string& where) {
  const auto found = json.find("seed");
  if (found == json.end() || !found->is_number_integer() ||
      (!found->is_number_unsigned() && found->get<int64_t>() < 0)) {
    throw InputError(where + ": \"seed\" must be an integer from 0 to 18446744073709551615");
  }
  return found->get<uint64_t>();
}

}  // namespace

double TrainPlan::MeanTokensPerStep(uint64_t train_tokens) const {
  const double batches =
      BatchSource::BatchesPerEpoch(train_tokens, {.rows = static_cast<size_t>(batch),
                                                  .ctx = static_cast<size_t>(ctx),
                                                  .sequential = carry_state});
  const double targets = static_cast<double>(std::max<uint64_t>(train_tokens, 2) - 1);
  return targets / batches * static_cast<double>(grad_accum);
}

int64_t TrainPlan::StepsFor(double tokens, uint64_t train_tokens) const {
  // A product of epochs and tokens may be a rounding above a whole number of steps.
  const double count = std::ceil(tokens / MeanTokensPerStep(train_tokens) * (1 - 1e-12));
  return static_cast<int64_t>(std::clamp(count, 1.0, 1e9));
}

void TrainPlan::FixSteps(int64_t horizon) {
  steps = std::max<int64_t>(horizon, 1);
  if (warmup >= 0) return;
  const bool llama = model.is_object() && model.value("model", "") == "llama";
  warmup = std::min(std::max<int64_t>(llama ? 100 : 50, steps / 50), steps / 10);
}

double TrainPlan::LearningRate(int64_t step) const {
  if (step < warmup) return lr * static_cast<double>(step) / static_cast<double>(warmup);
  if (step == warmup || steps <= 0) return lr;
  // Part of the steps in (from, steps] that is done after this one.
  const auto done = [&](double from) {
    const double left = static_cast<double>(steps) - from;
    return left <= 0 ? 1.0 : std::clamp((static_cast<double>(step) - from) / left, 0.0, 1.0);
  };
  const auto start = static_cast<double>(std::max<int64_t>(warmup, 0));
  const double decay_start = std::max(start, (1 - kDecayShare) * static_cast<double>(steps));
  return lr + (min_lr - lr) * Fall(schedule, done(start), done(decay_start));
}

Json TrainPlan::ToJson() const {
  return {{"model", model},
          {"batch", batch},
          {"ctx", ctx},
          {"grad_accum", grad_accum},
          {"steps", steps},
          {"minutes", minutes},
          {"lr", lr},
          {"min_lr", min_lr},
          {"weight_decay", weight_decay},
          {"beta1", beta1},
          {"beta2", beta2},
          {"eps", eps},
          {"clip", clip},
          {"warmup", warmup},
          {"schedule", ScheduleName(schedule)},
          {"label_smoothing", label_smoothing},
          {"dropout", dropout},
          {"carry_state", carry_state},
          {"init", init},
          {"seed", seed},
          {"recompute", recompute},
          {"dtype", dtype},
          {"eval_every", eval_every},
          {"eval_tokens", eval_tokens},
          {"save_every", save_every},
          {"keep", keep},
          {"val_fraction", val_fraction},
          {"data", data}};
}

TrainPlan TrainPlan::FromJson(const Json& json, const std::string& where) {
  constexpr int64_t kMany = int64_t{1} << 50;
  const auto count = [&](const char* field, int64_t lowest, int64_t highest) {
    return GetInteger(json, field, lowest, highest, where);
  };
  const auto number = [&](const char* field, double lowest, double highest) {
    return GetNumberIn(json, field, lowest, highest, where);
  };
  TrainPlan plan;
  plan.batch = count("batch", 1, 1 << 16);
  plan.ctx = count("ctx", 1, 1 << 24);
  plan.grad_accum = count("grad_accum", 1, 1 << 16);
  plan.steps = count("steps", 0, kMany);
  plan.minutes = number("minutes", 0, 1e6);
  plan.lr = number("lr", 0, 10);
  plan.min_lr = number("min_lr", 0, 10);
  plan.weight_decay = number("weight_decay", 0, 10);
  plan.beta1 = number("beta1", 0, 0.999999);
  plan.beta2 = number("beta2", 0, 0.999999);
  plan.eps = number("eps", 0, 1);
  plan.clip = number("clip", 0, 1e6);
  plan.warmup = count("warmup", -1, kMany);
  plan.schedule = GetSchedule(json, where);
  plan.label_smoothing = number("label_smoothing", 0, 0.99);
  plan.dropout = number("dropout", 0, 0.99);
  plan.carry_state = GetBool(json, "carry_state", where);
  plan.init = GetString(json, "init", where);
  plan.seed = GetSeed(json, where);
  plan.recompute = GetString(json, "recompute", where);
  plan.dtype = GetString(json, "dtype", where);
  if (plan.dtype != "float32" && plan.dtype != "bf16") {
    throw InputError(where + ": \"dtype\" is \"" + plan.dtype + "\"; known are float32 and bf16");
  }
  plan.eval_every = count("eval_every", -1, kMany);
  plan.eval_tokens = count("eval_tokens", -1, kMany);
  plan.save_every = count("save_every", -1, kMany);
  plan.keep = count("keep", 1, 1'000'000);
  plan.val_fraction = number("val_fraction", 0, 0.9);
  const auto sizes = json.find("model");
  if (sizes == json.end() || !sizes->is_object()) {
    throw InputError(where + ": \"model\" must be an object");
  }
  plan.model = *sizes;
  const auto paths = json.find("data");
  if (paths == json.end() || !paths->is_array()) {
    throw InputError(where + ": \"data\" must be a list of paths");
  }
  for (const Json& path : *paths) {
    if (!path.is_string()) throw InputError(where + ": \"data\" must be a list of paths");
    plan.data.push_back(path.get<std::string>());
  }
  return plan;
}

}  // namespace lanewise::model
