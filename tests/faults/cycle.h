// A whole life of a run in miniature: train, save, evaluate, stop, resume, until it is finished.
// Started again after any fault it goes on from what it finds.
#ifndef LANEWISE_TESTS_FAULTS_CYCLE_H_
#define LANEWISE_TESTS_FAULTS_CYCLE_H_

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/evaluate.h"
#include "model/training_record.h"
#include "tests/support/tiny_run.h"

namespace lanewise::testing {

constexpr const char* kCycleFolder = "runs/cycle";
inline const std::vector<std::string> kKinds{"slot_rnn", "llama"};

// Whether to run the full sizes (`./dev soak`) or the sample of every day.
inline bool Soak() { return std::getenv("LANEWISE_SOAK") != nullptr; }

// Remembers the last checkpoint that was reported as saved.
struct Saves final : model::TrainObserver {
  void OnSave(int64_t step, const std::string&) override { last = step; }
  int64_t last = 0;
};

struct Cycle {
  explicit Cycle(const std::string& kind, size_t threads = 1)
      : name(kind), scheduler(threads), tiny(60) {
    const int32_t vocabulary = tiny.tokenizer->vocab_size();
    const model::Json sizes = kind == "slot_rnn"
                                  ? model::Json{{"model", "slot_rnn"}, {"vocab_size", vocabulary},
                                                {"layers", 1},         {"dim", 8},
                                                {"heads", 2},          {"ctx", 8},
                                                {"slots", 2},          {"decay_rank", 2},
                                                {"ffn_mult", 1.5}}
                                  : model::Json{{"model", "llama"},     {"vocab_size", vocabulary},
                                                {"layers", 1},          {"dim", 8},
                                                {"heads", 2},           {"kv_heads", 1},
                                                {"hidden_dim", 12},     {"ctx", 8},
                                                {"tied", true},         {"norm_eps", 1e-5},
                                                {"rope_theta", 10000.0}};
    plan = TinyPlan(sizes, 2, 8);
    plan.steps = 6;
    plan.carry_state = kind == "slot_rnn";
    plan.eval_every = 2;
    plan.eval_tokens = 16;
    plan.save_every = 2;
    plan.keep = 1;
  }

  // Returns the weights at the end. Throws what stops it; `saves` knows what was saved before.
  std::vector<float> Run(model::FileSystem& files, Saves* saves) const {
    const model::RunLock lock(files, kCycleFolder);
    for (;;) {
      model::TrainerSetup setup{.files = &files,
                                .run_folder = kCycleFolder,
                                .scheduler = &scheduler,
                                .observer = saves,
                                .stop_after = 3};
      model::Trainer trainer(plan, *tiny.tokenizer, tiny.data, setup);
      const model::CheckpointStore store(files, kCycleFolder, 1);
      if (const auto latest = store.Latest()) {
        trainer.Resume(model::LoadCheckpoint(files, latest->folder));
      } else {
        trainer.Initialize();
      }
      const bool finished = trainer.Run().finished;
      Evaluate(files);
      if (finished)
        return {trainer.weights(), trainer.weights() + trainer.model().params().buffer_size()};
    }
  }

  // The run folder as a model, from another program's point of view.
  double Evaluate(model::FileSystem& files) const {
    const model::ModelFile file = model::OpenModel(files, kCycleFolder);
    const auto model = model::MakeModel(file.config, file.path);
    std::vector<float> weights(model->params().buffer_size());
    model::LoadWeights(file, model->params(), weights);
    return model::Evaluator(*model, scheduler)
        .Run(weights.data(), tiny.data.validation, {})
        .cross_entropy;
  }

  std::string name;
  runtime::Scheduler scheduler;
  TinyData tiny;
  model::TrainPlan plan;
};

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_FAULTS_CYCLE_H_
