// Tiny trainings of every model, in one list: what must hold for one must hold for all.
#ifndef LANEWISE_TESTS_SUPPORT_TINY_RUN_H_
#define LANEWISE_TESTS_SUPPORT_TINY_RUN_H_

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "model/data.h"
#include "model/tokenizer.h"
#include "model/trainer.h"

namespace lanewise::testing {

// A text of made-up words with some grammar in it.
inline std::string MadeUpText(size_t words, uint32_t seed = 5) {
  static const char* const kWords[] = {"the", "slot",   "remembers", "what", "a",
                                       "row", "forgot", "and",       "then", "sleeps"};
  std::mt19937 random(seed);
  std::string text;
  size_t word = 0;
  for (size_t i = 0; i < words; ++i) {
    word = (word + 1 + random() % 3) % 10;
    text += kWords[word];
    text += i % 11 == 10 ? ".\n" : " ";
  }
  return text;
}

struct TinyRun {
  std::string name;
  model::TrainPlan plan;
};

inline model::TrainPlan TinyPlan(const model::Json& sizes, int64_t batch, int64_t ctx) {
  model::TrainPlan plan;
  plan.model = sizes;
  plan.batch = batch;
  plan.ctx = ctx;
  plan.steps = 12;
  plan.lr = 3e-3;
  plan.min_lr = 3e-4;
  plan.weight_decay = 0.1;
  plan.beta1 = 0.9;
  plan.beta2 = 0.99;
  plan.clip = 1;
  plan.warmup = 3;
  plan.init = "default";
  plan.seed = 11;
  plan.recompute = "none";
  plan.eval_every = 4;
  plan.eval_tokens = 200;
  plan.save_every = 5;
  return plan;
}

// Both models in both parallel forms, with carried state, dropout, accumulation and recomputation.
inline std::vector<TinyRun> TinyRuns(int32_t vocab_size) {
  const model::Json rnn{{"model", "slot_rnn"}, {"vocab_size", vocab_size},
                        {"layers", 2},         {"dim", 24},
                        {"heads", 3},          {"ctx", 48},
                        {"slots", 3},          {"decay_rank", 5},
                        {"ffn_mult", 1.5}};
  const model::Json llama{{"model", "llama"},     {"vocab_size", vocab_size},
                          {"layers", 2},          {"dim", 24},
                          {"heads", 4},           {"kv_heads", 2},
                          {"hidden_dim", 40},     {"ctx", 48},
                          {"tied", true},         {"norm_eps", 1e-5},
                          {"rope_theta", 10000.0}};
  std::vector<TinyRun> runs;
  for (const model::Json& sizes : {rnn, llama}) {
    const std::string kind = sizes["model"];
    runs.push_back({kind + ", operation-parallel", TinyPlan(sizes, 3, 48)});
    runs.push_back({kind + ", batch-parallel", TinyPlan(sizes, 16, 48)});
    TinyRun mixed{kind + ", dropout, accumulation, smoothing, recomputation",
                  TinyPlan(sizes, 8, 48)};
    mixed.plan.dropout = 0.2;
    mixed.plan.grad_accum = 2;
    mixed.plan.label_smoothing = 0.1;
    mixed.plan.recompute = "layer";
    runs.push_back(mixed);
  }
  for (size_t i = 0; i < 2; ++i) {
    for (const TinyRun& run : {runs[3 * i], runs[3 * i + 1]}) {
      runs.push_back({run.name + ", bf16", run.plan});
      runs.back().plan.dtype = "bf16";
    }
  }
  TinyRun carried{"slot_rnn, carried state", TinyPlan(rnn, 4, 48)};
  carried.plan.carry_state = true;
  runs.push_back(carried);
  return runs;
}

struct TinyData {
  explicit TinyData(size_t words = 900) : text(MadeUpText(words)) {
    const std::vector<std::string_view> texts{text};
    tokenizer = model::BuildTokenizer("char", texts, {});
    const model::TextSplit split = model::SplitTexts(texts, 0.1);
    data.train = model::Tokenize(*tokenizer, split.train);
    data.validation = model::Tokenize(*tokenizer, split.validation);
    data.hash = 77;
  }
  std::string text;
  std::unique_ptr<model::Tokenizer> tokenizer;
  model::TrainData data;
};

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_TINY_RUN_H_
