// What a person left open: sizes, batch, optimizer and length.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <span>

#include "model/error.h"
#include "model/train_options.h"
#include "runtime/check.h"

namespace lanewise::model {
namespace {

using runtime::StrCat;

// A row of sizes. The first row whose limit is above the text's effective size is taken; those with
// limit 0 lie between and are only for runs whose minutes are few.
struct Sizes {
  double limit;
  int64_t layers, dim, ctx;
  int64_t decay_rank, slots;     // slot_rnn
  double ffn_mult;               // slot_rnn
  int64_t heads;                 // 0: by dim
  int64_t kv_heads, hidden_dim;  // llama; 0: by heads and dim
};

constexpr double kAny = 1e300;

// The seed program's sizes, and one between.
constexpr std::array<Sizes, 5> kSlotRnnSizes = {{
    {5e3, 2, 64, 64, 4, 2, 1.5, 0, 0, 0},
    {5e4, 4, 128, 128, 8, 4, 2.0, 0, 0, 0},
    {0, 5, 192, 128, 8, 4, 2.0, 0, 0, 0},
    {5e5, 6, 256, 256, 16, 4, 2.5, 0, 0, 0},
    {kAny, 8, 384, 512, 32, 8, 3.0, 0, 0, 0},
}};
constexpr Sizes kSlotRnnFixed = {kAny, 4, 128, 128, 2, 4, 2.0, 4, 0, 0};

// 4 x 128 with a context of 64 is the published small setting for a megabyte of text.
constexpr std::array<Sizes, 5> kLlamaSizes = {{
    {5e3, 2, 64, 32, 0, 0, 0, 2, 0, 0},
    {2e6, 4, 128, 64, 0, 0, 0, 4, 0, 0},
    {2e7, 6, 256, 128, 0, 0, 0, 8, 0, 0},
    {2e8, 6, 288, 256, 0, 0, 0, 6, 0, 0},
    {kAny, 8, 512, 512, 0, 0, 0, 8, 0, 0},
}};
constexpr Sizes kLlamaFixed = {kAny, 4, 128, 64, 0, 0, 0, 4, 0, 0};

struct Preset {
  const char* name;
  Sizes sizes;
};
// Their vocabularies (512, 32000) are those of their tokenizers: --vocab gives them to others.
constexpr std::array<Preset, 4> kPresets = {{
    {"260K", {kAny, 5, 64, 512, 0, 0, 0, 8, 4, 172}},
    {"15M", {kAny, 6, 288, 256, 0, 0, 0, 6, 6, 768}},
    {"42M", {kAny, 8, 512, 1024, 0, 0, 0, 8, 8, 1376}},
    {"110M", {kAny, 12, 768, 1024, 0, 0, 0, 12, 12, 2048}},
}};

// The number nearest below `wanted` that divides dim, into heads of even width for rotations.
int64_t HeadsFor(int64_t dim, int64_t wanted, bool even_width) {
  for (int64_t heads = std::min(wanted, dim); heads > 1; --heads) {
    if (dim % heads == 0 && (!even_width || dim / heads % 2 == 0)) return heads;
  }
  return 1;
}

int64_t ChooseVocab(const SizeOptions& given, int32_t tokenizer_vocab) {
  if (given.vocab && *given.vocab < tokenizer_vocab) {
    throw UsageError(StrCat("--vocab ", *given.vocab, ": the tokenizer has ", tokenizer_vocab,
                            " tokens; a vocabulary can be padded, not cut"));
  }
  return given.vocab.value_or(tokenizer_vocab);
}

void CheckDivides(const char* part_option, int64_t part, const char* whole_option, int64_t whole) {
  if (whole % part == 0) return;
  throw UsageError(StrCat(part_option, " ", part, ": must divide ", whole_option, " ", whole,
                          "; try ", HeadsFor(whole, part, false)));
}

Json SlotRnnConfig(const Sizes& row, const SizeOptions& given, int64_t vocab) {
  const int64_t dim = given.dim.value_or(row.dim);
  const int64_t wanted = row.heads > 0 ? row.heads : std::max<int64_t>(2, dim / 32);
  const int64_t heads = given.heads.value_or(HeadsFor(dim, wanted, false));
  CheckDivides("--heads", heads, "--dim", dim);
  const double ffn_mult = given.ffn_mult.value_or(row.ffn_mult);
  // In float, as the seed program has it: the product in double can round to another integer.
  const auto ffn_dim = static_cast<int64_t>(static_cast<float>(dim) * static_cast<float>(ffn_mult));
  if (ffn_dim < 1) throw UsageError(StrCat("--ffn-mult ", ffn_mult, ": too small for --dim ", dim));
  return {{"model", "slot_rnn"},
          {"vocab_size", vocab},
          {"layers", given.layers.value_or(row.layers)},
          {"dim", dim},
          {"heads", heads},
          {"ctx", given.ctx.value_or(row.ctx)},
          {"slots", given.slots.value_or(row.slots)},
          {"decay_rank", given.decay_rank.value_or(row.decay_rank)},
          {"ffn_mult", ffn_mult},
          {"ffn_dim", ffn_dim}};
}

Json LlamaConfig(const Sizes& row, const SizeOptions& given, int64_t vocab) {
  const int64_t dim = given.dim.value_or(row.dim);
  if (dim % 2 != 0) throw UsageError(StrCat("--dim ", dim, ": must be even for llama"));
  const bool own_dim = dim == row.dim;
  const int64_t wanted =
      own_dim ? row.heads : std::max<int64_t>(2, dim <= 256 ? dim / 32 : dim / 64);
  const int64_t heads = given.heads.value_or(HeadsFor(dim, wanted, true));
  CheckDivides("--heads", heads, "--dim", dim);
  if (dim / heads % 2 != 0) {
    throw UsageError(StrCat("--heads ", heads, ": makes heads of width ", dim / heads,
                            " from --dim ", dim, ", which must be even; try ",
                            HeadsFor(dim, heads, true)));
  }
  const bool own_kv_heads = own_dim && heads == row.heads && row.kv_heads > 0;
  const int64_t kv_heads = given.kv_heads.value_or(own_kv_heads ? row.kv_heads : heads);
  CheckDivides("--kv-heads", kv_heads, "--heads", heads);
  // Two thirds of four times the width, in whole vectors.
  const int64_t by_dim = (8 * dim / 3 + 31) / 32 * 32;
  const int64_t hidden = own_dim && row.hidden_dim > 0 ? row.hidden_dim : by_dim;
  return {{"model", "llama"},
          {"vocab_size", vocab},
          {"layers", given.layers.value_or(row.layers)},
          {"dim", dim},
          {"heads", heads},
          {"kv_heads", kv_heads},
          {"hidden_dim", given.hidden_dim.value_or(hidden)},
          {"ctx", given.ctx.value_or(row.ctx)},
          {"tied", !given.untied},
          {"norm_eps", 1e-5},
          {"rope_theta", given.rope_theta.value_or(10000.0)}};
}

struct Corpus {
  double bytes, tokens;
  int64_t vocab;
  bool words;
};

// Parameters that take part in matrix products; looking up an embedding costs nothing.
double MatrixParameters(const Json& config) {
  const double embedding = config.value("vocab_size", 0.0) * config.value("dim", 0.0);
  const bool tied = config.value("tied", false);
  return static_cast<double>(CountParameters(config)) - (tied ? 0 : embedding);
}

// Whether a training of so many minutes sees enough text for these sizes. The shares of the
// machine's peak are what training steps of these widths reach.
bool Affordable(const Json& config, double minutes, double machine_gflops) {
  constexpr double kTokensPerParameter = 3;
  const auto dim = config.value("dim", int64_t{0});
  const double share = dim <= 64 ? 0.2 : dim <= 128 ? 0.4 : dim <= 256 ? 0.5 : 0.6;
  const double parameters = MatrixParameters(config);
  const double tokens = minutes * 60 * machine_gflops * 1e9 * share / (6 * parameters);
  return tokens >= kTokensPerParameter * parameters;
}

Json ChooseSizes(const TrainOptions& options, const Corpus& corpus, double machine_gflops) {
  const bool llama = options.model == "llama";
  const auto config = [&](const Sizes& row) {
    return llama ? LlamaConfig(row, options.sizes, corpus.vocab)
                 : SlotRnnConfig(row, options.sizes, corpus.vocab);
  };
  for (const Preset& preset : kPresets) {
    if (options.sizes.preset == preset.name) return config(preset.sizes);
  }
  if (!options.auto_config) return config(llama ? kLlamaFixed : kSlotRnnFixed);

  const std::span<const Sizes> rows =
      llama ? std::span<const Sizes>(kLlamaSizes) : std::span<const Sizes>(kSlotRnnSizes);
  const double effective = corpus.words ? corpus.bytes / 5 : corpus.bytes;
  size_t row = 0;
  while (rows[row].limit <= effective) ++row;
  if (options.minutes && machine_gflops > 0) {
    while (row > 0 && !Affordable(config(rows[row]), *options.minutes, machine_gflops)) --row;
  }
  Json chosen = config(rows[row]);
  // A window is no longer than the text, unless that was asked for.
  if (!options.sizes.ctx) {
    const auto longest = static_cast<int64_t>(std::max(1.0, corpus.tokens - 1));
    chosen["ctx"] = std::min(chosen["ctx"].get<int64_t>(), longest);
  }
  return chosen;
}

// Sequences of a step: 2,048 tokens for small models, more for larger ones, at least 16 steps in an
// epoch; in multiples of 8 where possible, because that is how a batch is cut into shards.
int64_t ChooseBatch(const Json& config, int64_t ctx, double train_tokens) {
  const double parameters = MatrixParameters(config);
  const double tokens = parameters < 2e6 ? 2048 : parameters < 8e6 ? 4096 : 8192;
  const auto rows =
      static_cast<int64_t>(std::min(tokens, train_tokens / 16) / static_cast<double>(ctx));
  if (rows >= 8) return rows / 8 * 8;
  return rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
}

// The recipe that was best for 4 x 128 on a megabyte of text; wider models want smaller steps.
void ChooseSlotRnnOptimizer(const TrainOptions& options, int64_t dim, TrainPlan* plan) {
  const double narrow = std::min(1.0, 128.0 / static_cast<double>(dim));
  plan->lr = options.lr.value_or(6e-3 * narrow);
  plan->min_lr = options.min_lr.value_or(0.05 * plan->lr);
  plan->beta2 = options.beta2.value_or(0.99);
  plan->carry_state = options.carry_state.value_or(true);
}

void ChooseLlamaOptimizer(const TrainOptions& options, int64_t dim, TrainPlan* plan) {
  const bool small = dim <= 384 && options.sizes.preset != "15M";
  plan->lr = options.lr.value_or(small ? 1e-3 : 5e-4);
  plan->min_lr = options.min_lr.value_or(0.1 * plan->lr);
  plan->beta2 = options.beta2.value_or(small ? 0.99 : 0.95);
  plan->carry_state = false;
}

void ChooseOptimizer(const TrainOptions& options, TrainPlan* plan) {
  const auto dim = plan->model.value("dim", int64_t{1});
  if (plan->model.value("model", "") == "llama") {
    ChooseLlamaOptimizer(options, dim, plan);
  } else {
    ChooseSlotRnnOptimizer(options, dim, plan);
  }
  if (plan->min_lr > plan->lr) {
    throw UsageError(StrCat("--min-lr ", plan->min_lr, ": must be at most the learning rate ",
                            plan->lr, "; give --lr too"));
  }
  plan->beta1 = options.beta1.value_or(0.9);
  plan->weight_decay = options.weight_decay.value_or(0.1);
  plan->clip = options.clip.value_or(1.0);
  plan->schedule = options.schedule.value_or(Schedule::kCosine);
  plan->warmup = options.warmup.value_or(-1);
}

// Tokens of a window: the model's context, or for a known model what was asked for.
int64_t ChooseWindow(const TrainOptions& options, const Json& config) {
  const auto context = config.value("ctx", int64_t{1});
  const int64_t window = options.sizes.ctx.value_or(context);
  if (window > context && config.value("model", "") == "llama") {
    throw UsageError(
        StrCat("--ctx ", window, ": the model has a context of ", context, "; at most that"));
  }
  return window;
}

// Steps of the run; 0 where minutes are to be measured.
int64_t ChooseSteps(const TrainOptions& options, const TrainPlan& plan, uint64_t train_tokens) {
  if (options.minutes) return 0;
  if (options.steps) return *options.steps;
  const auto targets = static_cast<double>(std::max<uint64_t>(train_tokens, 2) - 1);
  const auto steps = [&](double tokens) { return plan.StepsFor(tokens, train_tokens); };
  if (options.tokens) return steps(static_cast<double>(*options.tokens));
  if (options.epochs) return steps(*options.epochs * targets);
  const double most = std::max(20e6, targets);
  const double enough = 20 * static_cast<double>(CountParameters(plan.model));
  return std::max<int64_t>(1000, steps(std::min({10 * targets, most, enough})));
}

}  // namespace

uint64_t CountParameters(const Json& config) {
  const auto size = [&](const char* field) { return config.value(field, uint64_t{0}); };
  const uint64_t dim = size("dim");
  const uint64_t embedding = size("vocab_size") * dim;
  if (config.value("model", "") == "llama") {
    const uint64_t kv_dim = dim / std::max<uint64_t>(1, size("heads")) * size("kv_heads");
    const uint64_t layer =
        2 * dim + 2 * dim * dim + 2 * dim * kv_dim + 3 * dim * size("hidden_dim");
    return (config.value("tied", true) ? 1 : 2) * embedding + size("layers") * layer + dim;
  }
  // Norms 4, shift and its mixing 6, channel mix 1, decay and first step 2: vectors of a layer.
  const uint64_t layer = 13 * dim + 2 * dim * size("decay_rank") + 4 * dim * dim +
                         3 * dim * size("ffn_dim") + 2 * dim * size("slots");
  return 2 * embedding + 4 * dim + size("layers") * layer;
}

TrainPlan AutoConfigure(const TrainOptions& options, uint64_t train_bytes, uint64_t train_tokens,
                        int32_t vocab_size, bool word_tokenizer, double machine_gflops,
                        const Json& known) {
  options.Validate();
  const Corpus corpus{static_cast<double>(train_bytes), static_cast<double>(train_tokens),
                      ChooseVocab(options.sizes, vocab_size), word_tokenizer};
  TrainPlan plan;
  plan.model = known.is_null() ? ChooseSizes(options, corpus, machine_gflops) : known;
  plan.ctx = ChooseWindow(options, plan.model);
  plan.batch = options.batch.value_or(ChooseBatch(plan.model, plan.ctx, corpus.tokens));
  plan.grad_accum = options.grad_accum;
  ChooseOptimizer(options, &plan);
  plan.minutes = options.minutes.value_or(0);
  const int64_t steps = ChooseSteps(options, plan, train_tokens);
  if (steps > 0) plan.FixSteps(steps);
  plan.label_smoothing = options.label_smoothing;
  plan.dropout = options.dropout;
  plan.init = options.init;
  plan.seed = options.seed;
  plan.recompute = options.recompute;
  plan.dtype = options.dtype;
  plan.eval_every = options.eval_every.value_or(-1);
  plan.eval_tokens = options.eval_tokens.value_or(-1);
  plan.save_every = options.save_every.value_or(-1);
  plan.keep = options.keep;
  plan.val_fraction = options.val_fraction;
  return plan;
}

}  // namespace lanewise::model
