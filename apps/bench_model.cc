// lanewise bench train|prefill|decode: the speed of the real paths, on random tokens.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <span>

#include "apps/command.h"
#include "apps/format.h"
#include "apps/signals.h"
#include "apps/terminal.h"
#include "apps/train_flags.h"
#include "kernels/bfloat16.h"
#include "kernels/targets.h"
#include "model/checkpoint.h"
#include "model/error.h"
#include "model/session.h"
#include "runtime/arena.h"
#include "runtime/machine.h"

namespace lanewise::apps {

namespace {

using model::Json;
using model::TrainPlan;

constexpr double kSeconds = 3;  // where --steps does not say how long

enum class Path { kTrain, kPrefill, kDecode };

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The rounds of a measurement, each between two probes of what the machine can do: it moves on
// shared machines, by tens of percent within milliseconds. So the peak of a round is the mean of
// its probes, as its speed is a mean; the best moment of a probe says nothing about a round of
// seconds. Longer rounds have longer probes.
class Rounds {
 public:
  Rounds(const runtime::Scheduler& scheduler, int64_t wanted, bool bf16)
      : scheduler_(scheduler), wanted_(wanted), bf16_(bf16) {}

  // What a token has to read: it is probed too.
  void set_weights(std::span<const float> weights) { weights_ = weights; }

  // The first round warms up and is left out.
  void Add(double tokens_per_second) {
    const double before = probe_, reading_before = reading_;
    const double round = SecondsSince(round_begin_);
    probe_ = runtime::MeasurePeakGflops(scheduler_, std::clamp(round / 20, 0.02, 0.25), bf16_).mean;
    if (!weights_.empty()) reading_ = runtime::MeasureReadBandwidth(scheduler_, weights_, 0.02);
    Stderr().Progress(
        {"round " + std::to_string(speeds_.size()), FormatCount(tokens_per_second) + " tokens/s"});
    round_begin_ = Clock::now();
    if (before == 0) return;
    speeds_.push_back(tokens_per_second);
    peaks_.push_back((before + probe_) / 2);
    shares_.push_back(tokens_per_second / peaks_.back());
    if (weights_.empty()) return;
    // Its bandwidth does not move so; the better pass is what the weights can be read at.
    bandwidths_.push_back(std::max(reading_before, reading_));
    reading_shares_.push_back(tokens_per_second / bandwidths_.back());
  }
  bool Enough() const {
    if (StopSignal().load() != 0) return true;
    const auto rounds = static_cast<int64_t>(speeds_.size());
    return wanted_ > 0 ? rounds >= wanted_ : rounds >= 3 && SecondsSince(begin_) > kSeconds;
  }
  double TokensPerSecond() const { return Median(speeds_); }
  double PeakGflops() const { return Median(peaks_); }
  // Share of the peak for so much work a token, in GFLOP.
  double Share(double gflop) const { return Median(shares_) * gflop; }
  // Of the weights, in GB/s; and what share of it so many GB read a token are.
  double Bandwidth() const { return Median(bandwidths_); }
  double ReadingShare(double gigabytes) const { return Median(reading_shares_) * gigabytes; }
  size_t count() const { return speeds_.size(); }

 private:
  const runtime::Scheduler& scheduler_;
  int64_t wanted_;
  bool bf16_;
  std::span<const float> weights_;
  double probe_ = 0, reading_ = 0;
  std::vector<double> speeds_, peaks_, shares_, bandwidths_, reading_shares_;
  Clock::time_point begin_ = Clock::now(), round_begin_ = begin_;
};

// Ends a training after enough rounds.
class StepSpeeds : public model::TrainObserver {
 public:
  explicit StepSpeeds(Rounds* rounds) : rounds_(rounds) {}
  void OnStep(const model::StepReport& report) override {
    rounds_->Add(report.tokens_per_second);
    if (rounds_->Enough()) stop_ = 1;
  }
  const std::atomic<int>& stop() const { return stop_; }

 private:
  Rounds* rounds_;
  std::atomic<int> stop_{0};
};

std::vector<int32_t> RandomTokens(size_t count, size_t vocab_size) {
  std::vector<int32_t> tokens(count);
  uint64_t state = 0x9E3779B97F4A7C15u;
  for (int32_t& token : tokens) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<int32_t>((state >> 33) % vocab_size);
  }
  return tokens;
}

class BenchModelCommand : public Command {
 public:
  explicit BenchModelCommand(Path path) : path_(path) {}
  std::string name() const override { return std::string("bench ") + PathName(); }
  std::string summary() const override {
    return path_ == Path::kTrain     ? "measure the speed of training"
           : path_ == Path::kPrefill ? "measure the speed of reading a prompt"
                                     : "measure the speed of generating text";
  }
  std::string usage() const override { return "[OPTIONS]"; }
  std::string description() const override {
    return "Runs the real path on random tokens and random weights of the given sizes, probes the "
           "machine's peak between the rounds, and prints the median speed beside it. Figures of "
           "a "
           "machine that has other work to do mean little.";
  }
  std::vector<std::string> examples() const override {
    return {name() + " --layers 4 --dim 128 --heads 4",
            name() + " --model llama --preset 110M --json", name() + " --from runs/book"};
  }

  void Declare(Options& options) override;
  int Run(model::FileSystem& files, const Options& options) override;

 private:
  struct Result {
    double flops_per_token = 0;
    double bytes_per_token = 0;  // of weights that are read
    uint64_t memory_bytes = 0;   // planned
    uint64_t peak_memory_bytes = 0;
  };
  Result Train(model::FileSystem& files, const runtime::Scheduler& scheduler, Rounds* rounds);
  Result Infer(model::FileSystem& files, const runtime::Scheduler& scheduler, Rounds* rounds);
  TrainPlan Plan(model::FileSystem& files) const;
  void Print(const Result& result, const Rounds& rounds, size_t threads) const;

  const char* PathName() const {
    return path_ == Path::kTrain ? "train" : path_ == Path::kPrefill ? "prefill" : "decode";
  }

  Path path_;
  std::string from_;
  model::TrainOptions options_;
  int64_t steps_ = 0, streams_ = 1;
  bool Half() const { return options_.dtype == "bf16"; }
  Json config_;
  CommonOptions common_;
};

void BenchModelCommand::Declare(Options& options) {
  constexpr int64_t kLow = std::numeric_limits<int64_t>::min();
  constexpr int64_t kHigh = std::numeric_limits<int64_t>::max();
  model::SizeOptions& sizes = options_.sizes;
  options.Group("Model");
  options.Text("model", "KIND", &options_.model, "slot_rnn or llama");
  options.Text("from", "MODEL", &from_, "the sizes of this model, with random weights");
  options.Text("preset", "NAME", &sizes.preset, "llama's sizes by name: 260K, 15M, 42M, 110M");
  options.Integer("layers", "N", &sizes.layers, kLow, kHigh, "layers");
  options.Integer("dim", "N", &sizes.dim, kLow, kHigh, "width of the embedding");
  options.Integer("heads", "N", &sizes.heads, kLow, kHigh, "heads");
  options.Integer("slots", "N", &sizes.slots, kLow, kHigh, "slot_rnn: memory slots");
  options.Integer("decay-rank", "N", &sizes.decay_rank, kLow, kHigh, "slot_rnn: rank of the decay");
  options.Number("ffn-mult", "X", &sizes.ffn_mult, {.checked_later = true},
                 "slot_rnn: width of the feed-forward part, in --dim");
  options.Integer("kv-heads", "N", &sizes.kv_heads, kLow, kHigh, "llama: heads for keys, values");
  options.Integer("hidden-dim", "N", &sizes.hidden_dim, kLow, kHigh,
                  "llama: width of the feed-forward part");
  options.Flag("untied", &sizes.untied, "llama: an output matrix of its own");
  options.Integer("vocab", "N", &sizes.vocab, kLow, kHigh,
                  "entries of the vocabulary (default: 65, with a llama preset 32000)");
  options.Group("Work");
  options.Integer(
      "ctx", "N", &sizes.ctx, kLow, kHigh,
      path_ == Path::kPrefill ? "tokens of the prompt (default: 512)" : "tokens of a window");
  if (path_ == Path::kTrain) {
    options.Integer("batch", "N", &options_.batch, kLow, kHigh, "windows of a step");
    options.Text("recompute", "HOW", &options_.recompute, "none, layer or auto");
  }
  if (path_ == Path::kDecode) {
    options.Integer("batch", "N", &streams_, 1, 4096, "texts that are generated at once");
  }
  options.Integer("steps", "N", &steps_, 0, 1'000'000'000,
                  "repetitions to take the median of; 0: as many as three seconds hold");
  DeclareDtype(options, &options_.dtype);
  common_.Declare(options, /*json=*/true, /*profile=*/true);
}

TrainPlan BenchModelCommand::Plan(model::FileSystem& files) const {
  model::TrainOptions options = options_;
  options.steps = std::numeric_limits<int32_t>::max() / 8;
  options.auto_config = false;
  options.val_fraction = 0;
  options.eval_every = options.save_every = 0;
  options.eval_tokens = 1;
  options.warmup = 0;
  model::SizeOptions& sizes = options.sizes;
  Json known;
  if (!from_.empty()) {
    known = KnownConfig(model::OpenModel(files, from_).config, &options);
    const auto context = known["ctx"].get<int64_t>();
    if (path_ == Path::kPrefill && !sizes.ctx && options.model == "llama") {
      sizes.ctx = std::min<int64_t>(512, context);
    }
  }
  if (!sizes.vocab) sizes.vocab = sizes.preset.empty() ? 65 : sizes.preset == "260K" ? 512 : 32000;
  if (path_ == Path::kPrefill && !sizes.ctx) sizes.ctx = 512;
  if (!options.batch && !sizes.preset.empty()) options.batch = 4;
  TrainPlan plan = model::AutoConfigure(options, 1 << 20, 1 << 20, 1, false, 0, known);
  plan.model["ctx"] = plan.ctx;
  return plan;
}

BenchModelCommand::Result BenchModelCommand::Train(model::FileSystem& files,
                                                   const runtime::Scheduler& scheduler,
                                                   Rounds* rounds) {
  const TrainPlan plan = Plan(files);
  config_ = plan.model;
  config_["batch"] = plan.batch;
  const auto vocab = plan.model["vocab_size"].get<size_t>();
  const auto step_tokens = static_cast<size_t>(plan.TokensPerStep());
  model::TrainData data;
  data.train = model::TokenArray(static_cast<int32_t>(vocab));
  data.train.Append(RandomTokens(std::max<size_t>(1 << 20, 4 * step_tokens), vocab));
  const auto tokenizer = model::BuildTokenizer("byte", {}, {});
  StepSpeeds speeds(rounds);
  model::Trainer trainer(plan, *tokenizer, data,
                         {.files = &files,
                          .run_folder = "",
                          .scheduler = &scheduler,
                          .profiler = common_.profiler(),
                          .observer = &speeds,
                          .stop = &speeds.stop()});
  trainer.Initialize();
  trainer.Run();
  const auto flops = trainer.model().TrainFlopsPerToken(static_cast<size_t>(plan.ctx));
  return {.flops_per_token = flops, .bytes_per_token = 0, .memory_bytes = trainer.memory().Total()};
}

BenchModelCommand::Result BenchModelCommand::Infer(model::FileSystem& files,
                                                   const runtime::Scheduler& scheduler,
                                                   Rounds* rounds) {
  const TrainPlan plan = Plan(files);
  config_ = plan.model;
  const auto model = model::MakeModel(plan.model, "the options");
  const size_t vocab = model->vocab_size(), ctx = model->context();
  const size_t parameters = model->params().buffer_size();
  const runtime::Arena weights("weights", parameters * sizeof(float));
  const runtime::Arena half("bf16 weights", Half() ? parameters * sizeof(kernels::BFloat16) : 0);
  model->Initialize("default", 1, weights.Floats());
  if (Half()) kernels::RoundToBFloat16(weights.Floats(), half.As<kernels::BFloat16>());
  const bool decode = path_ == Path::kDecode;
  const auto streams = static_cast<size_t>(decode ? streams_ : 1);
  config_["batch"] = streams;
  if (decode) rounds->set_weights(Half() ? half.As<float>() : weights.Floats());
  model::Session session(*model, {weights.Floats().data(), half.As<kernels::BFloat16>().data()},
                         scheduler,
                         {.streams = streams,
                          .cache_capacity = ctx,
                          .prefill_steps = decode ? 1 : model::SessionOptions().prefill_steps,
                          .profiler = common_.profiler()});
  const std::vector<int32_t> tokens = RandomTokens(decode ? streams : ctx, vocab);
  // Decoding in portions of 16 tokens: long against the clock's resolution.
  const size_t portion = decode ? std::min<size_t>(16, ctx) : 1;
  // Texts of as many tokens as llama-bench takes, on a fast machine and on a slow one.
  const size_t longest = std::min<size_t>(128, ctx);
  size_t done = 0;
  while (!rounds->Enough()) {
    if (!decode || done + portion > longest) {
      session.Reset();
      done = 0;
    }
    done += portion;
    const auto begin = Clock::now();
    for (size_t i = 0; i < portion; ++i) {
      if (decode) {
        session.Step(tokens);
      } else {
        session.Feed(tokens);
      }
    }
    rounds->Add(static_cast<double>(tokens.size() * portion) / SecondsSince(begin));
  }
  const auto read = static_cast<double>(model->DecodeWeights());
  // A prompt's logits are computed for its last token only.
  const double head = 2.0 * config_["dim"].get<double>() * static_cast<double>(vocab);
  const double unused = decode ? 0 : head * (1 - 1 / static_cast<double>(ctx));
  rounds->set_weights({});  // they end here
  return {.flops_per_token = model->TrainFlopsPerToken(decode ? 1 : ctx) / 3 - unused,
          .bytes_per_token = decode ? read * (Half() ? 2 : 4) / static_cast<double>(streams) : 0,
          .memory_bytes = weights.size() + half.size() + session.MemoryBytes()};
}

void BenchModelCommand::Print(const Result& result, const Rounds& rounds, size_t threads) const {
  const double speed = rounds.TokensPerSecond(), gflop = result.flops_per_token * 1e-9;
  const double share = rounds.Share(gflop);
  const double gigabytes = result.bytes_per_token * 1e-9, used = speed * gigabytes;
  const std::string cpu = runtime::DescribeMachine().cpu;
  if (common_.json()) {
    WriteJson({{"path", PathName()},
               {"tokens_per_second", speed},
               {"gflops", speed * gflop},
               {"peak_gflops", rounds.PeakGflops()},
               {"mfu", share},
               {"bandwidth_gbs", used > 0 ? Json(used) : Json()},
               {"peak_bandwidth_gbs", used > 0 ? Json(rounds.Bandwidth()) : Json()},
               {"bandwidth_share", used > 0 ? Json(rounds.ReadingShare(gigabytes)) : Json()},
               {"peak_memory_bytes", result.peak_memory_bytes},
               {"planned_memory_bytes", result.memory_bytes},
               {"rounds", rounds.count()},
               {"model", config_},
               {"dtype", options_.dtype},
               {"arithmetic", DescribeDtype(options_.dtype)},
               {"isa", kernels::TargetName()},
               {"threads", threads},
               {"cpu", cpu}});
    return;
  }
  std::string text = DescribeModel(config_) + "\n" + cpu + ", " + kernels::TargetName() + ", " +
                     DescribeDtype(options_.dtype) + ", " + std::to_string(threads) +
                     (threads == 1 ? " thread\n" : " threads\n");
  text += FormatCount(speed) + " tokens/s, " + FormatFixed(speed * gflop, 1) + " GFLOP/s, " +
          FormatFixed(100 * share, 0) + "% of the peak of " + FormatFixed(rounds.PeakGflops(), 0) +
          "\n";
  if (used > 0) {
    text += FormatFixed(used, 1) + " GB/s of weights, " +
            FormatFixed(100 * rounds.ReadingShare(gigabytes), 0) + "% of the " +
            FormatFixed(rounds.Bandwidth(), 1) + " GB/s at which they can be read\n";
  }
  WriteOutput(text);
}

int BenchModelCommand::Run(model::FileSystem& files, const Options& options) {
  common_.Apply(files);
  if (!from_.empty()) CheckFromOptions(options);
  const auto scheduler = common_.MakeScheduler();
  Rounds rounds(*scheduler, steps_, Half());
  Result result =
      path_ == Path::kTrain ? Train(files, *scheduler, &rounds) : Infer(files, *scheduler, &rounds);
  result.peak_memory_bytes = runtime::PeakResidentBytes();
  Stderr().ClearProgress();
  if (SignalExitCode() != 0) throw Stopped();
  common_.WriteProfile(files, rounds.PeakGflops());
  Print(result, rounds, scheduler->threads());
  return 0;
}

}  // namespace

std::vector<std::unique_ptr<Command>> MakeBenchModelCommands() {
  std::vector<std::unique_ptr<Command>> commands;
  for (const Path path : {Path::kTrain, Path::kPrefill, Path::kDecode}) {
    commands.push_back(std::make_unique<BenchModelCommand>(path));
  }
  return commands;
}

}  // namespace lanewise::apps
