// Everything that describes a training run, as the command line, a config file and a checkpoint spell it.
#ifndef LANEWISE_MODEL_TRAIN_OPTIONS_H_
#define LANEWISE_MODEL_TRAIN_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/json.h"

namespace lanewise::model {

enum class Schedule { kConstant, kLinear, kCosine, kWsd };

// Sizes that were given explicitly; the rest is chosen by AutoConfigure.
struct SizeOptions {
  std::optional<int64_t> layers, dim, heads, ctx;
  std::optional<int64_t> slots, decay_rank;          // slot_rnn
  std::optional<double> ffn_mult;                    // slot_rnn
  std::optional<int64_t> kv_heads, hidden_dim;       // llama
  std::optional<int64_t> vocab;                      // pads the tokenizer's vocabulary
  std::optional<double> rope_theta;                  // llama
  bool untied = false;                               // llama: a head of its own
  std::string preset;                                // llama: 260K, 15M, 42M, 110M
};

// Defaults of the optimizer are those of the model kind (see AutoConfigure) unless given.
struct TrainOptions {
  std::string model = "slot_rnn";
  std::string tokenizer = "auto";
  SizeOptions sizes;
  bool auto_config = true;              // --no-auto-config: fixed default sizes instead of those by corpus size

  std::optional<int64_t> batch;
  // At most one of these says how long; none: one that suits the corpus.
  std::optional<int64_t> steps;
  std::optional<double> epochs;
  std::optional<int64_t> tokens;
  std::optional<double> minutes;

  std::optional<double> lr, min_lr, weight_decay, beta1, beta2, clip;
  std::optional<int64_t> warmup;        // steps
  std::optional<Schedule> schedule;
  double label_smoothing = 0;
  double dropout = 0;
  int64_t grad_accum = 1;
  std::optional<bool> carry_state;
  std::string init = "default";
  uint64_t seed = 1337;
  std::string recompute = "auto";       // none, layer, auto

  double val_fraction = 0.1;
  std::optional<int64_t> eval_every;    // steps; 0: never but at the end
  std::optional<int64_t> eval_tokens;   // of one evaluation while training
  std::optional<int64_t> save_every;    // steps; 0: only at the end
  std::optional<int64_t> stop_after;    // stop this run after so many steps, leaving the schedule as it is
  int64_t keep = 2;

  // UsageError names the option and the range.
  void Validate() const;
};

Schedule ParseSchedule(const std::string& name);  // UsageError with the nearest right name
std::string ScheduleName(Schedule schedule);

// A run with nothing left open: what is stored in checkpoints and printed at the start.
struct TrainPlan {
  Json model;              // config for MakeModel
  int64_t batch = 0;       // sequences of a micro-batch
  int64_t ctx = 0;
  int64_t grad_accum = 1;
  int64_t steps = 0;       // the schedule's horizon; 0: to be measured (--minutes)
  double minutes = 0;
  double lr = 0, min_lr = 0, weight_decay = 0, beta1 = 0, beta2 = 0, eps = 1e-8, clip = 0;
  int64_t warmup = 0;
  Schedule schedule = Schedule::kCosine;
  double label_smoothing = 0, dropout = 0;
  bool carry_state = false;
  std::string init;
  uint64_t seed = 0;
  std::string recompute;
  int64_t eval_every = 0, eval_tokens = 0, save_every = 0;  // -1: chosen while running
  int64_t keep = 2;
  double val_fraction = 0.1;

  int64_t TokensPerStep() const { return batch * ctx * grad_accum; }
  double LearningRate(int64_t step) const;  // step counts from 1
  Json ToJson() const;
  static TrainPlan FromJson(const Json& json, const std::string& where);
};

// Fills in everything that was left open, from the size of the corpus (bytes), its tokens and vocabulary.
TrainPlan AutoConfigure(const TrainOptions& options, uint64_t train_bytes, uint64_t train_tokens,
                        int32_t vocab_size, bool word_tokenizer);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_TRAIN_OPTIONS_H_
