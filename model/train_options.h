// Everything that describes a training run, as the command line, a config file and a checkpoint
// spell it. TrainOptions is what a person said, TrainPlan what follows from it.
#ifndef LANEWISE_MODEL_TRAIN_OPTIONS_H_
#define LANEWISE_MODEL_TRAIN_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/json.h"

namespace lanewise::model {

// How the learning rate goes on after the warm-up: it stays, falls to min_lr evenly or along a
// cosine, or stays for 80% of all steps and then falls as 1 - sqrt (warm-up, stable, decay: Hägele
// et al., "Scaling laws and compute-optimal training beyond fixed training durations", 2024).
enum class Schedule { kConstant, kLinear, kCosine, kWsd };

// Sizes that were given explicitly; the rest is chosen by AutoConfigure.
struct SizeOptions {
  std::optional<int64_t> layers, dim, heads, ctx;
  std::optional<int64_t> slots, decay_rank;     // slot_rnn
  std::optional<double> ffn_mult;               // slot_rnn
  std::optional<int64_t> kv_heads, hidden_dim;  // llama
  std::optional<int64_t> vocab;                 // pads the tokenizer's vocabulary
  std::optional<double> rope_theta;             // llama
  bool untied = false;                          // llama: a head of its own
  std::string preset;                           // llama: 260K, 15M, 42M, 110M
};

// Defaults of the optimizer are those of the model kind (see AutoConfigure) unless given.
struct TrainOptions {
  std::string model = "slot_rnn";
  std::string tokenizer = "auto";
  SizeOptions sizes;
  bool auto_config = true;  // false: fixed default sizes instead of those by corpus size

  std::optional<int64_t> batch;
  // At most one of these says how long; none: one that suits the corpus.
  std::optional<int64_t> steps;
  std::optional<double> epochs;
  std::optional<int64_t> tokens;
  std::optional<double> minutes;

  std::optional<double> lr, min_lr, weight_decay, beta1, beta2, clip;
  std::optional<int64_t> warmup;  // steps
  std::optional<Schedule> schedule;
  double label_smoothing = 0;
  double dropout = 0;
  int64_t grad_accum = 1;
  std::optional<bool> carry_state;
  std::string init = "default";
  uint64_t seed = 1337;
  std::string recompute = "auto";  // none, layer, auto
  std::string dtype = "float32";   // of matrix products: float32 or bf16

  double val_fraction = 0.1;
  std::optional<int64_t> eval_every;   // steps; 0: never but at the end
  std::optional<int64_t> eval_tokens;  // of one evaluation while training
  std::optional<int64_t> save_every;   // steps; 0: only at the end
  std::optional<int64_t> stop_after;   // steps of this session; the schedule stays as it is
  int64_t keep = 2;

  // UsageError names the option and the range.
  void Validate() const;
};

Schedule ParseSchedule(const std::string& name);  // UsageError with the nearest right name
std::string ScheduleName(Schedule schedule);

// A run with nothing left open: what is stored in checkpoints and printed at the start.
struct TrainPlan {
  Json model;         // config for MakeModel
  int64_t batch = 0;  // sequences of a micro-batch
  int64_t ctx = 0;    // tokens of a training window
  int64_t grad_accum = 1;
  int64_t steps = 0;  // the schedule's horizon; 0: to be measured (--minutes), then FixSteps
  double minutes = 0;
  double lr = 0, min_lr = 0, weight_decay = 0, beta1 = 0, beta2 = 0, eps = 1e-8, clip = 0;
  int64_t warmup = 0;  // steps; -1: chosen by FixSteps
  Schedule schedule = Schedule::kCosine;
  double label_smoothing = 0, dropout = 0;
  bool carry_state = false;
  std::string init;
  uint64_t seed = 0;
  std::string recompute;
  std::string dtype = "float32";
  int64_t eval_every = 0, eval_tokens = 0, save_every = 0;  // -1: chosen while running
  int64_t keep = 2;
  double val_fraction = 0.1;
  std::vector<std::string> data;  // where the text was read, for those who go on without saying

  int64_t TokensPerStep() const { return batch * ctx * grad_accum; }  // at most
  // The same on average, with a text of so many tokens: its parts need not be whole windows.
  double MeanTokensPerStep(uint64_t train_tokens) const;
  // Steps in which so many tokens of that text are trained on; at least 1.
  int64_t StepsFor(double tokens, uint64_t train_tokens) const;
  // Sets the horizon and, where it was left open, the warm-up: 2% of the steps, at least 50 (llama:
  // 100), but never more than a tenth.
  void FixSteps(int64_t horizon);
  // Of step 1, 2, …: rises evenly to lr at step `warmup`, then follows the schedule to min_lr at
  // the last step and stays there. Without a horizon it stays at lr.
  double LearningRate(int64_t step) const;

  Json ToJson() const;
  // InputError names `where` and the field that is missing or out of range.
  static TrainPlan FromJson(const Json& json, const std::string& where);
};

// Fills in everything that was left open, from the training text's bytes and tokens and the
// tokenizer's vocabulary; UsageError names options that do not fit together.
// Sizes: by the text's effective size (bytes, divided by 5 for words) or fixed without auto_config;
// a preset's where one is named; each that was given stays as it is; `known` is the config of a
// model that has its sizes. With --minutes and a known speed (`machine_gflops`, measured; 0:
// unknown) the largest of the automatic sizes that still sees three tokens for each parameter in
// that time.
// Length, where none is given: ten epochs, at most 20M tokens (but one epoch) and at most 20 tokens
// for each parameter; at least 1,000 steps.
TrainPlan AutoConfigure(const TrainOptions& options, uint64_t train_bytes, uint64_t train_tokens,
                        int32_t vocab_size, bool word_tokenizer, double machine_gflops = 0,
                        const Json& known = {});

// Parameters of a model with this config.
uint64_t CountParameters(const Json& config);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_TRAIN_OPTIONS_H_
