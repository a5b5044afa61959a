// lanewise plan: what a training would take, without running it.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>

#include "apps/command.h"
#include "apps/format.h"
#include "apps/signals.h"
#include "apps/terminal.h"
#include "apps/text_input.h"
#include "apps/train_flags.h"
#include "model/checkpoint.h"
#include "model/error.h"
#include "model/loaded_model.h"
#include "runtime/arena.h"
#include "runtime/machine.h"

namespace lanewise::apps {

namespace {

using model::Json;
using model::TrainPlan;

constexpr double kMeasureSeconds = 1.5;
constexpr double kTrainingShare = 0.88;  // of --minutes; evaluations and saves take the rest
constexpr double kAssumedShare = 0.5;    // of the peak, where nothing can be measured
constexpr uint64_t kAssumedBytes = 1 << 20;

// Ends a training after a few steps and keeps the fastest of them; the first one warms up.
class Stopwatch : public model::TrainObserver {
 public:
  void OnStep(const model::StepReport& report) override {
    if (report.step > 1) best_ = std::min(best_, report.seconds - last_);
    last_ = report.seconds;
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    if ((report.step > 1 && seconds > kMeasureSeconds) || StopSignal().load() != 0) stop_ = 1;
  }
  const std::atomic<int>& stop() const { return stop_; }
  double step_seconds() const { return best_; }  // infinity where none was measured

 private:
  std::atomic<int> stop_{0};
  double best_ = std::numeric_limits<double>::infinity();
  double last_ = 0;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// Stands for a text where none is given: bytes in no order cost what any text does.
// For a model of `vocab` tokens.
model::TrainText AssumedText(int32_t vocab) {
  model::TrainText text;
  text.tokenizer = model::BuildTokenizer("byte", {}, {});
  text.train_bytes = kAssumedBytes;
  const int32_t tokens = std::min(vocab, text.tokenizer->vocab_size());
  text.data.train = model::TokenArray(tokens);
  std::vector<int32_t> ids(kAssumedBytes);
  uint32_t state = 1;
  for (int32_t& id : ids) {
    state = state * 1664525u + 1013904223u;
    id = static_cast<int32_t>(state >> 24) % tokens;
  }
  text.data.train.Append(ids);
  text.data.train.bytes = kAssumedBytes;
  text.notices.push_back("without --data this is for a megabyte of bytes");
  return text;
}

class PlanCommand : public Command {
 public:
  std::string name() const override { return "plan"; }
  std::string summary() const override {
    return "say what a training would take, without running it";
  }
  std::string usage() const override { return "[--data FILE] [OPTIONS]"; }
  std::string description() const override {
    return "Takes the same options as train and prints parameters, FLOPs of a token, peak memory, "
           "this "
           "machine's measured GFLOP/s, tokens/s (measured with a few real steps, in about two "
           "seconds) "
           "and the time the training would take.";
  }
  std::vector<std::string> examples() const override {
    return {
        "plan --data book.txt --layers 6 --dim 256 --epochs 10",
        "plan --model llama --preset 110M --vocab 32000 --batch 4 --ctx 256 --steps 1000 --json"};
  }

  void Declare(Options& options) override {
    options.Group("Run");
    options.Text("out", "DIR", &ignored_, "as train has it; nothing is written");
    options.Text("from", "MODEL", &from_, "begin with another model, as train does");
    options.ConfigFile();
    flags_.Declare(options);
    common_.Declare(options, /*json=*/true, /*profile=*/false);
  }

  int Run(model::FileSystem& files, const Options& options) override;

 private:
  struct Speed {
    double tokens_per_second = 0;
    double flops_per_token = 0;
    bool measured = false;
  };
  Speed Measure(model::FileSystem& files, const TrainPlan& plan, const model::TrainText& text,
                const model::MemoryPlan& memory, const runtime::Scheduler& scheduler,
                double gflops) const;

  std::string ignored_, from_;
  TrainFlags flags_;
  CommonOptions common_;
};

PlanCommand::Speed PlanCommand::Measure(model::FileSystem& files, const TrainPlan& plan,
                                        const model::TrainText& text,
                                        const model::MemoryPlan& memory,
                                        const runtime::Scheduler& scheduler, double gflops) const {
  const auto model = model::MakeModel(plan.model, "the configuration");
  Speed speed;
  speed.flops_per_token = model->TrainFlopsPerToken(static_cast<size_t>(plan.ctx));
  speed.tokens_per_second = kAssumedShare * gflops * 1e9 / speed.flops_per_token;
  const uint64_t available = runtime::AvailableMemoryBytes();
  if (available > 0 && memory.Total() > available) return speed;
  TrainPlan trial = plan;
  trial.steps = 1'000'000;
  trial.warmup = std::max<int64_t>(trial.warmup, 0);
  trial.eval_every = trial.eval_tokens = trial.save_every = 0;
  // A step of many seconds is measured on a part of its batch.
  const double step_seconds = static_cast<double>(plan.batch * plan.ctx) / speed.tokens_per_second;
  trial.grad_accum = 1;
  if (step_seconds > kMeasureSeconds) {
    const double share = kMeasureSeconds / step_seconds * static_cast<double>(plan.batch);
    trial.batch = std::clamp<int64_t>(static_cast<int64_t>(share), 1, plan.batch);
  }
  model::TrainData data{.train = text.data.train, .validation = {}, .hash = 0};
  Stopwatch watch;
  model::Trainer trainer(trial, *text.tokenizer, data,
                         {.files = &files,
                          .run_folder = "",
                          .scheduler = &scheduler,
                          .observer = &watch,
                          .stop = &watch.stop()});
  trainer.Initialize();
  trainer.Run();
  // A step takes as long where its windows are not full.
  const double seconds = watch.step_seconds();
  if (seconds > 0 && std::isfinite(seconds)) {
    speed.tokens_per_second = trial.MeanTokensPerStep(data.train.size()) / seconds;
    speed.measured = true;
  }
  return speed;
}

int PlanCommand::Run(model::FileSystem& files, const Options& options) {
  common_.Apply(files);
  if (!from_.empty()) CheckFromOptions(options);
  flags_.Check();
  const auto scheduler = common_.MakeScheduler();
  double gflops = runtime::MeasurePeakGflops(*scheduler, 0.2).undisturbed;
  Json config, tokenizer;
  int32_t vocab = std::numeric_limits<int32_t>::max();
  if (!from_.empty()) {
    const model::ModelFile file = model::OpenModel(files, from_);
    config = file.config;
    tokenizer = file.tokenizer;
    vocab = file.config.at("vocab_size").get<int32_t>();
    if (tokenizer.is_null() && !flags_.data().empty()) model::ThrowNoTokenizer(file);
  }
  std::optional<EndOnSignal> reading(std::in_place);
  const model::TrainText text =
      flags_.data().empty()
          ? AssumedText(vocab)
          : model::ReadTrainText(files, flags_.data(), flags_.options().val_fraction,
                                 flags_.options().tokenizer, flags_.MaxVocab(), tokenizer,
                                 ReadingProgress());
  reading.reset();
  Stderr().ClearProgress();
  TrainPlan plan = MakePlan(flags_, text, config, gflops);
  if (plan.dtype == "bf16") gflops = runtime::MeasurePeakGflops(*scheduler, 0.2, true).undisturbed;
  const model::MemoryPlan memory =
      model::PlanMemory(plan, scheduler->threads(),
                        text.data.train.MemoryBytes() + text.data.validation.MemoryBytes());
  const Speed speed = Measure(files, plan, text, memory, *scheduler, gflops);
  if (SignalExitCode() != 0) throw Stopped();
  const double step_tokens = TokensOfStep(plan, text);
  if (plan.steps == 0) {
    plan.FixSteps(static_cast<int64_t>(kTrainingShare * plan.minutes * 60 *
                                       speed.tokens_per_second / step_tokens));
  }
  const double tokens = static_cast<double>(plan.steps) * step_tokens;
  // Evaluation may take a twentieth on top.
  const double seconds = tokens / speed.tokens_per_second * 1.05;
  if (common_.json()) {
    WriteJson({{"parameters", model::CountParameters(plan.model)},
               {"flops_per_token", speed.flops_per_token},
               {"peak_memory_bytes", memory.Total()},
               {"machine_gflops", gflops},
               {"tokens_per_second", speed.tokens_per_second},
               {"measured", speed.measured},
               {"mfu", speed.tokens_per_second * speed.flops_per_token * 1e-9 / gflops},
               {"seconds", seconds},
               {"steps", plan.steps},
               {"tokens", std::llround(tokens)},
               {"threads", scheduler->threads()},
               {"shards", memory.shards},
               {"recompute", memory.recompute},
               {"plan", plan.ToJson()}});
    return 0;
  }
  std::string out;
  for (const std::string& notice : text.notices) Stderr().Line("Note: " + notice);
  for (const std::string& line : DescribePlan({.plan = &plan,
                                               .text = &text,
                                               .memory = memory,
                                               .threads = scheduler->threads(),
                                               .machine_gflops = gflops})) {
    out += line + "\n";
  }
  out += "Memory    parameters " + model::FormatBytes(memory.parameters) + ", gradients " +
         model::FormatBytes(memory.gradients) + ", moments " + model::FormatBytes(memory.moments) +
         ", activations " + model::FormatBytes(memory.activations) + ", the rest " +
         model::FormatBytes(memory.evaluation + memory.data) + "\n";
  out += "Speed     " + FormatCount(speed.flops_per_token) + "FLOP a token, " +
         FormatCount(speed.tokens_per_second) + " tokens/s " +
         (speed.measured ? "measured" : "estimated: too large to be tried here") + " (" +
         FormatFixed(100 * speed.tokens_per_second * speed.flops_per_token * 1e-9 / gflops, 0) +
         "% of the peak)\n";
  out += "Time      " + FormatDuration(seconds) + "\n";
  WriteOutput(out);
  const uint64_t machine = runtime::TotalMemoryBytes();
  if (machine > 0 && memory.Total() > machine) {
    Stderr().Line("Note: this is more than the machine's " + model::FormatBytes(machine) + "; " +
                  model::HowToFit(memory, machine));
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> MakePlanCommand() { return std::make_unique<PlanCommand>(); }

}  // namespace lanewise::apps
