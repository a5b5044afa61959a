#include "apps/train_flags.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "apps/command.h"
#include "apps/format.h"
#include "kernels/targets.h"
#include "model/error.h"

namespace lanewise::apps {

namespace {

// TrainOptions::Validate knows the ranges and what follows from other options.
constexpr int64_t kLow = std::numeric_limits<int64_t>::min();
constexpr int64_t kHigh = std::numeric_limits<int64_t>::max();
constexpr Range kLater = {.checked_later = true};

}  // namespace

void TrainFlags::Declare(Options& options) {
  options.Group("Data");
  options.List("data", "FILE", &data_, /*greedy=*/true,
               "text files, or folders of text files, of any size");
  options.Number("val-fraction", "X", &options_.val_fraction, kLater,
                 "share at the end of the text that is kept for validation");
  options.Text("tokenizer", "KIND", &options_.tokenizer,
               "byte, char, word, bpe, or auto: char for texts below 20,000 bytes, else word");
  DeclareModel(options);
  DeclareLength(options);
  DeclareOptimizer(options);
  DeclareEvaluation(options);
}

int32_t TrainFlags::MaxVocab() const {
  // More entries stay empty.
  const int64_t most = model::kMostEntries;
  return static_cast<int32_t>(std::min(options_.sizes.vocab.value_or(0), most));
}

void TrainFlags::DeclareModel(Options& options) {
  model::SizeOptions& sizes = options_.sizes;
  options.Group("Model (what is not given is chosen by the size of the text)");
  options.Text("model", "KIND", &options_.model,
               "slot_rnn (a linear RNN with slot memory) or llama (a transformer)");
  options.Text("preset", "NAME", &sizes.preset, "llama's sizes by name: 260K, 15M, 42M, 110M");
  options.Integer("layers", "N", &sizes.layers, kLow, kHigh, "layers");
  options.Integer("dim", "N", &sizes.dim, kLow, kHigh, "width of the embedding");
  options.Integer("heads", "N", &sizes.heads, kLow, kHigh, "heads; must divide --dim");
  options.Integer("ctx", "N", &sizes.ctx, kLow, kHigh, "tokens of a training window");
  options.Integer("slots", "N", &sizes.slots, kLow, kHigh, "slot_rnn: memory slots");
  options.Integer("decay-rank", "N", &sizes.decay_rank, kLow, kHigh,
                  "slot_rnn: rank of the decay's projection");
  options.Number("ffn-mult", "X", &sizes.ffn_mult, kLater,
                 "slot_rnn: width of the feed-forward part, in --dim");
  options.Integer("kv-heads", "N", &sizes.kv_heads, kLow, kHigh,
                  "llama: heads for keys and values; must divide --heads");
  options.Integer("hidden-dim", "N", &sizes.hidden_dim, kLow, kHigh,
                  "llama: width of the feed-forward part");
  options.Number("rope-theta", "X", &sizes.rope_theta, kLater, "llama: base of the rotations");
  options.Flag("untied", &sizes.untied, "llama: an output matrix of its own");
  options.Integer("vocab", "N", &sizes.vocab, kLow, kHigh,
                  "entries of the vocabulary: words or merges at most, the rest stays empty");
  options.Text("init", "SCHEME", &options_.init, "initial values: default or seed");
  options.Switch("auto-config", &auto_config_,
                 "choose sizes by the size of the text (default); --no-auto-config: fixed sizes");
}

void TrainFlags::DeclareLength(Options& options) {
  options.Group("Length (one of the first four; default: as the text and the model need)");
  options.Exclusive("length");
  options.Integer("steps", "N", &options_.steps, kLow, kHigh, "steps of the optimizer");
  options.Number("epochs", "X", &options_.epochs, kLater, "times over the text");
  options.Integer("tokens", "N", &options_.tokens, kLow, kHigh, "tokens to train on");
  options.Number("minutes", "X", &options_.minutes, kLater,
                 "about this long (with --resume: longer by this): measured once, then a fixed "
                 "number of steps");
  options.Exclusive("");
  options.Integer("stop-after", "N", &options_.stop_after, kLow, kHigh,
                  "stop after N steps of this session, save, and leave the schedule as it is");
  options.Integer("batch", "N", &options_.batch, kLow, kHigh, "windows of a step");
  options.Integer("grad-accum", "N", &options_.grad_accum, kLow, kHigh,
                  "batches whose gradients are summed for one step");
  options.Switch("carry-state", &options_.carry_state,
                 "slot_rnn: go on from the state of the window before (default); "
                 "--no-carry-state: shuffled windows");
}

void TrainFlags::DeclareOptimizer(Options& options) {
  options.Group("Optimizer (AdamW; what is not given suits the model)");
  options.Number("lr", "RATE", &options_.lr, kLater, "learning rate");
  options.Number("min-lr", "RATE", &options_.min_lr, kLater, "learning rate at the end");
  options.Integer("warmup", "N", &options_.warmup, kLow, kHigh,
                  "steps in which the learning rate rises");
  options.Text("schedule", "NAME", &schedule_,
               "of the learning rate: constant, linear, cosine or wsd (default: cosine)");
  options.Number("weight-decay", "X", &options_.weight_decay, kLater, "of matrices");
  options.Number("beta1", "X", &options_.beta1, kLater, "decay of the first moment");
  options.Number("beta2", "X", &options_.beta2, kLater, "decay of the second moment");
  options.Number("clip", "X", &options_.clip, kLater, "largest norm of the gradient; 0: any");
  options.Number("label-smoothing", "X", &options_.label_smoothing, kLater,
                 "share of each target that is spread over the vocabulary");
  options.Number("dropout", "X", &options_.dropout, kLater, "share of activations set to zero");
  options.Text("recompute", "HOW", &options_.recompute,
               "compute activations again to save memory: none, layer, or auto (when it is short)");
  options.Text("dtype", "TYPE", &options_.dtype,
               "numbers that matrix products multiply: float32 or bf16 (weights, gradients and all "
               "else stay float32)");
  options.Unsigned("seed", "N", &options_.seed, "seed of everything random");
}

void TrainFlags::DeclareEvaluation(Options& options) {
  options.Group("Evaluation and checkpoints");
  options.Integer("eval-every", "N", &options_.eval_every, kLow, kHigh,
                  "steps between evaluations; 0: only at the end (default: ten in a run)");
  options.Integer("eval-tokens", "N", &options_.eval_tokens, kLow, kHigh,
                  "validation tokens of one evaluation (default: what takes 5% of the time; the "
                  "last one reads all, or what takes 5% again)");
  options.Integer("save-every", "N", &options_.save_every, kLow, kHigh,
                  "steps between checkpoints; 0: only at the end (default: as --eval-every). Only "
                  "what is saved in a step that is evaluated too can become the best");
  options.Integer("keep", "N", &options_.keep, kLow, kHigh,
                  "newest checkpoints to keep beside the best");
}

void TrainFlags::Check() {
  if (!schedule_.empty()) options_.schedule = model::ParseSchedule(schedule_);
  if (auto_config_) options_.auto_config = *auto_config_;
  options_.Validate();
}

void CheckFromOptions(const Options& options) {
  for (const char* name :
       {"model", "tokenizer", "preset", "layers", "dim", "heads", "slots", "decay-rank", "ffn-mult",
        "kv-heads", "hidden-dim", "rope-theta", "untied", "vocab", "init"}) {
    if (!options.Given(name)) continue;
    throw model::UsageError("--" + std::string(name) +
                            " comes from the model of --from; leave it out");
  }
}

model::Json KnownConfig(model::Json config, model::TrainOptions* options) {
  options->model = config.value("model", "");
  config.erase("training");
  return config;
}

model::TrainPlan MakePlan(const TrainFlags& flags, const model::TrainText& text,
                          const model::Json& known, double machine_gflops) {
  const std::string_view kind = text.tokenizer->kind();
  const bool words = kind == "word" || kind == "bpe";
  model::TrainOptions options = flags.options();
  const model::Json config = known.is_null() ? known : KnownConfig(known, &options);
  model::TrainPlan plan =
      model::AutoConfigure(options, text.train_bytes, text.data.train.size(),
                           text.tokenizer->vocab_size(), words, machine_gflops, config);
  // As they were given: a folder may hold more files than a checkpoint's settings can name.
  plan.data = flags.data();
  return plan;
}

std::string DescribeModel(const model::Json& config) {
  const auto size = [&](const char* field) {
    return std::to_string(config.value(field, int64_t{0}));
  };
  const std::string kind = config.value("model", "");
  std::string text =
      kind + ": " + size("layers") + " layers of " + size("dim") + ", " + size("heads") + " heads";
  if (kind == "llama") {
    text += " (" + size("kv_heads") + " for keys and values), feed-forward " + size("hidden_dim");
    text += config.value("tied", true) ? "" : ", untied";
  } else {
    text += ", " + size("slots") + " slots, decay rank " + size("decay_rank") + ", feed-forward " +
            size("ffn_dim");
  }
  return text + ", context " + size("ctx") + ", vocabulary " + size("vocab_size");
}

namespace {

std::string DescribeText(const model::TrainText& text) {
  std::string line = "Text      " + FormatInteger(text.train_bytes) + " bytes to train on, " +
                     FormatInteger(text.validation_bytes) + " for validation";
  if (text.files > 1) line += ", " + std::to_string(text.files) + " files";
  return line + "; " + std::string(text.tokenizer->kind()) + " tokenizer, " +
         FormatInteger(text.data.train.size()) + " tokens";
}

std::string DescribeLength(const model::TrainPlan& plan, const model::TrainText& text) {
  std::string line = "Training  ";
  if (plan.steps == 0) {
    line += FormatShort(plan.minutes) + " minutes of steps";
  } else {
    line += FormatNumber(static_cast<uint64_t>(plan.steps), "step");
  }
  line += " of " + std::to_string(plan.batch) + " × " + std::to_string(plan.ctx) + " tokens";
  if (plan.grad_accum > 1) line += " × " + std::to_string(plan.grad_accum);
  if (plan.steps == 0) return line;
  const double tokens = static_cast<double>(plan.steps) * TokensOfStep(plan, text);
  line += ", " + FormatCount(tokens) + " in all";
  if (text.files == 0) return line;
  const double targets = static_cast<double>(text.data.train.size() - 1);
  const double epochs = std::round(tokens / targets * 100) / 100;
  return line + " (" + (epochs > 0 ? FormatShort(epochs) : "less than 0.01") + " epochs)";
}

}  // namespace

double TokensOfStep(const model::TrainPlan& plan, const model::TrainText& text) {
  if (text.files == 0) return static_cast<double>(plan.TokensPerStep());
  return plan.MeanTokensPerStep(text.data.train.size());
}

std::vector<std::string> DescribePlan(const PlanFacts& facts) {
  const model::TrainPlan& plan = *facts.plan;
  std::vector<std::string> lines;
  const bool given = facts.text->files > 0;
  if (given) lines.push_back(DescribeText(*facts.text));
  lines.push_back("Model     " + DescribeModel(plan.model) + "; " +
                  FormatInteger(model::CountParameters(plan.model)) + " parameters");
  lines.push_back(DescribeLength(plan, *facts.text));
  lines.push_back(
      "Rate      " + FormatShort(plan.lr) + ", " + model::ScheduleName(plan.schedule) +
      (plan.schedule == model::Schedule::kConstant ? "" : " to " + FormatShort(plan.min_lr)) +
      (plan.warmup > 0 ? " after " + std::to_string(plan.warmup) + " steps of warm-up" : "") +
      "; weight decay " + FormatShort(plan.weight_decay) + ", clip " + FormatShort(plan.clip) +
      ", seed " + std::to_string(plan.seed));
  lines.push_back(
      "Machine   " + std::to_string(facts.threads) +
      (facts.threads == 1 ? " thread, " : " threads, ") + kernels::TargetName() + ", " +
      DescribeDtype(plan.dtype) + ", " + FormatShort(std::round(facts.machine_gflops)) +
      " GFLOP/s at most; " + model::FormatBytes(facts.memory.Total()) + " of memory planned; " +
      (facts.memory.shards > 1 ? "the batch in " + std::to_string(facts.memory.shards) + " shards"
                               : "each operation over the threads") +
      (facts.memory.recompute ? "; layers recomputed" : ""));
  return lines;
}

}  // namespace lanewise::apps
