// What --resume may change of a run, and what not.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "apps/format.h"
#include "apps/train_flags.h"
#include "model/error.h"

namespace lanewise::apps {

namespace {

using model::Json;
using model::TrainPlan;
using model::UsageError;

// Options that do not describe the training itself, or that may change. Not --eval-tokens: losses
// over different parts of the split cannot be compared, and the best checkpoint is that of the
// lowest.
bool MayChange(const std::string& name) {
  static constexpr const char* kNames[] = {
      "steps", "epochs",  "tokens",  "minutes", "stop-after",  "eval-every", "save-every",
      "keep",  "threads", "profile", "quiet",   "json",        "isa",        "config",
      "data",  "out",     "resume",  "RUN",     "auto-config", "bf16-unit"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

std::string WithUnderscores(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name == "vocab" ? "vocab_size" : name;
}

// Rates that were computed have more digits than a person wrote or is shown.
std::string TextOf(const Json& value) {
  if (value.is_number_float()) return FormatShort(value.get<double>());
  return value.is_string() ? value.get<std::string>() : value.dump();
}

bool IsTrue(const std::string& text) {
  return text == "true" || text == "1" || text == "yes" || text == "on";
}

bool Same(const std::string& text, const Json& value) {
  if (value.is_string()) return text == value.get<std::string>();
  if (value.is_boolean()) return IsTrue(text) == value.get<bool>();
  if (!value.is_number()) return false;
  if (value.is_number_integer()) {
    // Without the rounding of doubles, for seeds.
    uint64_t given = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, given);
    if (stop == end && error == std::errc()) return value == given;
  }
  char* end = nullptr;
  const double given = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || *end != '\0') return false;
  return value.is_number_float() ? FormatShort(given) == TextOf(value)
                                 : given == value.get<double>();
}

[[noreturn]] void Refuse(const std::string& name, const std::string& given,
                         const std::string& stored) {
  throw UsageError("--" + name + (given.empty() ? "" : " " + given) + ": this run has " + stored +
                   " and --resume cannot change it; leave the option out, or start a new run with "
                   "--from and another --out");
}

// A preset stands for several sizes: all have to be the run's.
void CheckPreset(const TrainFlags& flags, const TrainPlan& stored) {
  const std::string& preset = flags.options().sizes.preset;
  model::TrainOptions only;
  only.model = flags.options().model;
  only.sizes.preset = preset;
  const Json sizes = model::AutoConfigure(only, 1, 2, 1, false).model;
  for (const char* field : {"model", "layers", "dim", "heads", "kv_heads", "hidden_dim"}) {
    if (sizes[field] == stored.model.value(field, Json())) continue;
    Refuse("preset", preset + " (" + std::string(field) + " " + TextOf(sizes[field]) + ")",
           TextOf(stored.model.value(field, Json())));
  }
}

void CheckUnchanged(const Option& option, const TrainFlags& flags, const TrainPlan& stored,
                    const Json& plan, const std::string& tokenizer_kind) {
  const std::string& text = option.texts.back();
  if (option.name == "preset") return CheckPreset(flags, stored);
  if (option.name == "from") {
    throw UsageError("--from starts a new run and --resume goes on with one: give one of them");
  }
  if (option.name == "tokenizer") {
    if (text != "auto" && text != tokenizer_kind) Refuse("tokenizer", text, tokenizer_kind);
    return;
  }
  const std::string field = WithUnderscores(option.name);
  Json value;
  if (option.name == "untied") {
    value = !stored.model.value("tied", true);
  } else if (field != "model" && plan.contains(field)) {
    value = plan[field];
  } else if (stored.model.contains(field)) {
    value = stored.model[field];
  }
  if (value.is_null()) Refuse(option.name, text, "no such size");
  if (Same(text, value)) return;
  if (value.is_boolean()) {
    Refuse((IsTrue(text) ? "" : "no-") + option.name, "",
           option.name + (value.get<bool>() ? " on" : " off"));
  }
  Refuse(option.name, text, TextOf(value));
}

}  // namespace

TrainPlan ResumePlan(const Options& options, const TrainFlags& flags, const TrainPlan& stored,
                     const std::string& tokenizer_kind) {
  const Json json = stored.ToJson();
  for (const auto& option : options.all()) {
    if (option->source == Source::kDefault || MayChange(option->name)) continue;
    CheckUnchanged(*option, flags, stored, json, tokenizer_kind);
  }
  TrainPlan plan = stored;
  const model::TrainOptions& given = flags.options();
  if (given.eval_every) plan.eval_every = *given.eval_every;
  if (given.save_every) plan.save_every = *given.save_every;
  if (options.Given("keep")) plan.keep = given.keep;
  return plan;
}

}  // namespace lanewise::apps
