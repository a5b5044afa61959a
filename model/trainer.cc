#include "model/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "kernels/bfloat16.h"
#include "model/error.h"
#include "model/generate.h"
#include "model/optimizer.h"
#include "model/session.h"
#include "model/train_step.h"
#include "model/training_record.h"
#include "runtime/arena.h"
#include "runtime/check.h"

namespace lanewise::model {

using runtime::StrCat;

namespace {

constexpr int kMaxSkippedSteps = 10;
// The last evaluation covers this much of the validation split, or a token for every eight trained,
// which takes at most about a twentieth of the training's time.
constexpr uint64_t kLastEvalTokens = uint64_t{1} << 17;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

class Trainer::Impl {
 public:
  Impl(TrainPlan plan, const Tokenizer& tokenizer, const TrainData& data,
       const TrainerSetup& setup);

  void Initialize();
  void InitializeFrom(const ModelFile& file);
  void Resume(const Checkpoint& checkpoint);
  FinishReport Run();

  TrainPlan plan_;
  std::unique_ptr<Model> model_;
  runtime::Arena weights_;
  runtime::Arena half_;  // their bf16 copies, which products read; empty with float32
  MemoryPlan memory_;

 private:
  void CheckSetup() const;
  void Start();
  void FixLength();
  void ChooseIntervals();
  void FetchStep();
  TrainStep::Loss Gradients(int64_t step);
  StepReport DoStep();
  void ResetAfterSkip();
  // False where a stop came in between; true where there is nothing to evaluate on.
  bool Evaluate(const TokenArray& part, bool last);
  void EvaluateWhereDue();
  bool EvaluateLast();
  // What evaluations while training read.
  const TokenArray& Usual() const { return excerpt_.size() > 0 ? excerpt_ : data_.validation; }
  void Save();
  bool Stopping() const { return setup_.stop != nullptr && setup_.stop->load() != 0; }
  std::span<float> Weights() { return weights_.Floats(); }
  std::span<kernels::BFloat16> Half() { return half_.As<kernels::BFloat16>(); }
  runtime::Weights Reading() { return {Weights().data(), Half().data()}; }
  void RoundWeights() {
    if (!Half().empty()) kernels::RoundToBFloat16(Weights(), Half());
  }
  double Seconds() const { return seconds_before_ + (Now() - started_); }

  const Tokenizer& tokenizer_;
  const TrainData& data_;
  TrainerSetup setup_;
  TrainObserver silent_;
  TrainObserver* observer_;
  std::unique_ptr<TrainStep> step_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<BatchSource> source_;
  std::unique_ptr<Evaluator> evaluator_;
  TokenArray excerpt_;  // of the validation split, for evaluations while training; empty: all of it
  std::unique_ptr<Session> session_;
  std::unique_ptr<TrainingRecord> record_;

  // The step's batches: grad_accum micro-batches one after the other.
  std::vector<int32_t> inputs_, targets_;
  std::vector<bool> reset_;
  uint64_t valid_targets_ = 0;

  int64_t given_ctx_ = 0;  // a short text makes it less
  int64_t done_ = 0;       // steps
  uint64_t tokens_ = 0;
  int skipped_ = 0;  // in a row
  double seconds_before_ = 0, started_ = 0;
  double recent_seconds_ = 0;  // smoothed seconds of a step
  double train_loss_ = 0;      // smoothed
  bool ready_ = false;         // there are weights to train
  std::optional<double> val_loss_, val_bits_, best_val_loss_;
  // The last step that was evaluated over the part by which checkpoints are compared, and the last
  // that was saved, with the losses that these know.
  struct StepLoss {
    int64_t step = -1;
    std::optional<double> loss;
  } evaluated_, saved_;
};

Trainer::Impl::Impl(TrainPlan plan, const Tokenizer& tokenizer, const TrainData& data,
                    const TrainerSetup& setup)
    : plan_(std::move(plan)),
      tokenizer_(tokenizer),
      data_(data),
      setup_(setup),
      observer_(setup.observer != nullptr ? setup.observer : &silent_) {
  CheckSetup();
  source_ = std::make_unique<BatchSource>(
      data.train, BatchSource::Options{.rows = static_cast<size_t>(plan_.batch),
                                       .ctx = static_cast<size_t>(plan_.ctx),
                                       .sequential = plan_.carry_state,
                                       .seed = plan_.seed});
  if (!source_->notice().empty()) observer_->OnNotice(source_->notice());
  given_ctx_ = plan_.ctx;
  plan_.ctx = static_cast<int64_t>(source_->ctx());
  model_ = MakeModel(plan_.model, "the configuration");
  const runtime::Scheduler& scheduler = *setup.scheduler;
  memory_ = PlanMemory(plan_, scheduler.threads(),
                       data.train.MemoryBytes() + data.validation.MemoryBytes());
  const uint64_t machine = runtime::TotalMemoryBytes();
  if (machine > 0 && memory_.Total() > machine) {
    throw OutOfMemory(StrCat("this training needs ", FormatBytes(memory_.Total()), " (activations ",
                             FormatBytes(memory_.activations), "), the machine has ",
                             FormatBytes(machine), "; ", HowToFit(memory_, machine)));
  }
  weights_ = runtime::Arena("parameters", model_->params().buffer_size() * sizeof(float));
  const bool half = plan_.dtype == "bf16";
  if (half) {
    half_ = runtime::Arena("bf16 parameters",
                           model_->params().buffer_size() * sizeof(kernels::BFloat16));
  }
  step_ = std::make_unique<TrainStep>(
      *model_, scheduler,
      StepShape{.sequences = static_cast<size_t>(plan_.batch),
                .steps = static_cast<size_t>(plan_.ctx),
                .carry_state = plan_.carry_state,
                .label_smoothing = static_cast<float>(plan_.label_smoothing),
                .dropout = static_cast<float>(plan_.dropout),
                .recompute_layers = memory_.recompute,
                .half_weights = half},
      setup.profiler);
  optimizer_ = std::make_unique<Optimizer>(model_->params(), scheduler);
  const size_t rows = static_cast<size_t>(plan_.batch * plan_.ctx * plan_.grad_accum);
  inputs_.resize(rows);
  targets_.resize(rows);
  reset_.resize(static_cast<size_t>(plan_.grad_accum));
  if (data.validation.size() >= 2) {
    evaluator_ =
        std::make_unique<Evaluator>(*model_, scheduler, static_cast<size_t>(plan_.ctx), 0, half);
    session_ = std::make_unique<Session>(
        *model_, Reading(), scheduler,
        SessionOptions{.cache_capacity = SampleTokens(*model_), .prefill_steps = 1});
  }
}

// A setup that leaves out what it must have is the caller's mistake, not a person's.
void Trainer::Impl::CheckSetup() const {
  if (setup_.scheduler == nullptr) throw std::invalid_argument("Trainer: no scheduler");
  if (!setup_.run_folder.empty() && setup_.files == nullptr) {
    throw std::invalid_argument("Trainer: a run folder, but no files");
  }
  const auto vocab = plan_.model.value("vocab_size", int64_t{0});
  if (data_.train.vocab_size() > vocab || data_.validation.vocab_size() > vocab) {
    throw std::invalid_argument("Trainer: tokens of a larger vocabulary than the model's");
  }
}

void Trainer::Impl::Start() {
  ready_ = true;
  const std::string& folder = setup_.run_folder;
  if (!folder.empty() && CheckpointStore(*setup_.files, folder, 1).Latest()) {
    throw UsageError(folder + " holds a run: go on with it, or choose another folder");
  }
}

void Trainer::Impl::Initialize() {
  Start();
  model_->Initialize(plan_.init, plan_.seed, Weights());
  RoundWeights();
}

void Trainer::Impl::InitializeFrom(const ModelFile& file) {
  Start();
  LoadWeights(file, model_->params(), Weights());
  RoundWeights();
}

void Trainer::Impl::Resume(const Checkpoint& checkpoint) {
  ready_ = true;
  const TrainingState state =
      ReadTrainingState(checkpoint, model_->params(),
                        {Weights(), optimizer_->first_moments(), optimizer_->second_moments(),
                         step_->StateTensors()});
  if (state.data_hash != data_.hash) {
    throw InputError(checkpoint.folder +
                     ": the training data are not those of this run; give --data the same text, or "
                     "start a new run with --from");
  }
  RoundWeights();
  source_->set_position(state.position);
  done_ = state.step;
  saved_ = {done_, checkpoint.val_loss};
  if (checkpoint.val_loss) evaluated_ = saved_;
  tokens_ = state.tokens;
  seconds_before_ = state.seconds;
  train_loss_ = state.train_loss;
  best_val_loss_ = state.best_val_loss;
  val_loss_ = checkpoint.val_loss;
}

// --minutes: measures this machine once with the real step, then trains a fixed number of steps, on
// top of those of a run that goes on. Nothing that is trained changes: the learning rate and the
// gradients of the updates are zero, and where there are moments and a carried state already, these
// are left and put back.
void Trainer::Impl::FixLength() {
  if (plan_.steps > 0) return;
  const DataPosition position = source_->position();
  std::vector<std::vector<float>> state;
  for (const TrainStep::StateTensor& tensor : step_->StateTensors()) {
    state.emplace_back(tensor.values.begin(), tensor.values.end());
  }
  FetchStep();
  const double budget = std::min(2.0, plan_.minutes * 60 * 0.03);
  const double begin = Now();
  double best = std::numeric_limits<double>::infinity();
  for (int n = 0; n < 2 || Now() - begin < budget; ++n) {
    const double start = Now();
    Gradients(1);
    step_->Finish();
    step_->Zero();
    if (done_ == 0) optimizer_->Update(1, {.eps = 1e-8}, 1.0, Weights(), step_->gradients());
    if (n > 0) best = std::min(best, Now() - start);
  }
  source_->set_position(position);
  const std::vector<TrainStep::StateTensor> tensors = step_->StateTensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::copy(state[i].begin(), state[i].end(), tensors[i].values.begin());
  }
  // The rest goes to evaluations, saves, and a machine that slows down when it gets warm.
  const double seconds = plan_.minutes * 60 - (Now() - begin);
  const auto steps = std::max<int64_t>(1, static_cast<int64_t>(0.88 * seconds / best));
  plan_.FixSteps(done_ + steps);
  observer_->OnNotice(StrCat("a step takes ", static_cast<int64_t>(best * 1e4) / 10.0,
                             " ms here: training ", steps, done_ > 0 ? " more steps" : " steps"));
}

void Trainer::Impl::ChooseIntervals() {
  if (plan_.eval_every < 0) plan_.eval_every = std::max<int64_t>(1, (plan_.steps + 9) / 10);
  if (plan_.eval_tokens < 0) {
    // A twentieth of the time: an evaluated token costs a third of a trained one, and a single
    // stream is slower.
    const int64_t interval = plan_.eval_every > 0 ? plan_.eval_every : plan_.steps;
    plan_.eval_tokens = std::max<int64_t>(2048, interval * plan_.TokensPerStep() / 12);
  }
  if (plan_.save_every < 0) plan_.save_every = plan_.eval_every;
  const auto wanted = static_cast<uint64_t>(plan_.eval_tokens);
  if (wanted > 0 && wanted < data_.validation.size() / 10 * 9) {
    excerpt_ = Excerpt(data_.validation, wanted);
  }
}

void Trainer::Impl::FetchStep() {
  const size_t rows = static_cast<size_t>(plan_.batch * plan_.ctx);
  valid_targets_ = 0;
  for (size_t a = 0; a < reset_.size(); ++a) {
    const BatchInfo info = source_->Next(std::span(inputs_).subspan(a * rows, rows),
                                         std::span(targets_).subspan(a * rows, rows));
    valid_targets_ += info.targets;
    reset_[a] = info.reset_state;
  }
}

TrainStep::Loss Trainer::Impl::Gradients(int64_t step) {
  const size_t rows = static_cast<size_t>(plan_.batch * plan_.ctx);
  const float scale = 1.0F / static_cast<float>(std::max<uint64_t>(1, valid_targets_));
  TrainStep::Loss sum;
  for (size_t a = 0; a < reset_.size(); ++a) {
    if (reset_[a]) step_->ResetState();
    const TrainStep::Loss loss =
        step_->Accumulate(Reading(), std::span(inputs_).subspan(a * rows, rows),
                          std::span(targets_).subspan(a * rows, rows), scale, plan_.seed,
                          static_cast<uint32_t>(step), static_cast<uint32_t>(a * rows));
    sum.loss += loss.loss;
    sum.nll += loss.nll;
  }
  return sum;
}

void Trainer::Impl::ResetAfterSkip() {
  step_->Zero();
  step_->ResetState();
  if (++skipped_ >= kMaxSkippedSteps) {
    const std::string saved =
        saved_.step < 0 ? "no checkpoint was saved before"
                        : StrCat("the last checkpoint before is that of step ", saved_.step);
    throw DivergedError(StrCat("the loss or its gradient was not finite in ", skipped_,
                               " steps in a row (up to step ", done_, "); ", saved,
                               ". A lower --lr or a longer --warmup helps"));
  }
}

StepReport Trainer::Impl::DoStep() {
  const double begin = Now();
  const int64_t step = done_ + 1;
  FetchStep();
  const TrainStep::Loss loss = Gradients(step);
  const double squares = step_->Finish();
  StepReport report;
  report.step = step;
  report.steps = plan_.steps;
  report.lr = plan_.LearningRate(step);
  report.grad_norm = std::sqrt(squares);
  report.loss = loss.nll / static_cast<double>(std::max<uint64_t>(1, valid_targets_));
  done_ = step;
  if (!std::isfinite(squares) || !std::isfinite(loss.loss)) {
    report.skipped = true;
    ResetAfterSkip();
  } else {
    const double clip =
        plan_.clip > 0 && report.grad_norm > plan_.clip ? plan_.clip / report.grad_norm : 1.0;
    optimizer_->Update(step,
                       {.lr = report.lr,
                        .beta1 = plan_.beta1,
                        .beta2 = plan_.beta2,
                        .eps = plan_.eps,
                        .weight_decay = plan_.weight_decay},
                       clip, Weights(), step_->gradients(), Half());
    skipped_ = 0;
    train_loss_ = train_loss_ == 0 ? report.loss : 0.95 * train_loss_ + 0.05 * report.loss;
  }
  report.smooth_loss = train_loss_;
  tokens_ += valid_targets_;
  const double seconds = Now() - begin;
  recent_seconds_ = recent_seconds_ == 0 ? seconds : 0.9 * recent_seconds_ + 0.1 * seconds;
  report.tokens = tokens_;
  report.tokens_per_second = static_cast<double>(valid_targets_) / seconds;
  if (setup_.peak_gflops > 0) {
    report.mfu = report.tokens_per_second *
                 model_->TrainFlopsPerToken(static_cast<size_t>(plan_.ctx)) * 1e-9 /
                 setup_.peak_gflops;
  }
  report.seconds = Seconds();
  report.seconds_left = static_cast<double>(plan_.steps - done_) * recent_seconds_;
  return report;
}

bool Trainer::Impl::Evaluate(const TokenArray& part, bool last) {
  if (evaluator_ == nullptr) return true;
  EvaluateOptions options;
  options.progress = [&](double done) {
    observer_->OnEvaluateProgress(done_, done);
    return !Stopping();
  };
  const EvaluateResult result = evaluator_->Run(Reading(), part, options);
  // A part that was cut short must not be compared with whole ones.
  if (Stopping()) return false;
  EvalReport report;
  report.step = done_;
  report.steps = plan_.steps;
  report.seconds = Seconds();
  report.train_loss = train_loss_;
  report.val_loss = result.cross_entropy;
  report.val_bits_per_byte = result.bits_per_byte;
  report.whole = part.size() == data_.validation.size();
  report.last = last;
  report.tokens = part.size();
  val_loss_ = result.cross_entropy;
  val_bits_ = result.bits_per_byte;
  // Checkpoints are compared over the same part of the split; the last evaluation may follow over
  // all of it.
  if (evaluated_.step != done_) {
    evaluated_ = {done_, result.cross_entropy};
    report.best = std::isfinite(result.cross_entropy) &&
                  (!best_val_loss_ || result.cross_entropy < *best_val_loss_);
    if (report.best) best_val_loss_ = result.cross_entropy;
    report.sample = SampleText(*session_, tokenizer_, data_.validation[0], SampleTokens(*model_),
                               plan_.seed + static_cast<uint64_t>(done_));
  }
  if (record_) record_->Evaluate(report);
  observer_->OnEvaluate(report);
  return true;
}

void Trainer::Impl::EvaluateWhereDue() {
  if (done_ < plan_.steps && plan_.eval_every > 0 && done_ % plan_.eval_every == 0) {
    Evaluate(Usual(), false);
  }
}

// After the last step: as the others, so that it can be compared, and over more of the split.
bool Trainer::Impl::EvaluateLast() {
  if (evaluated_.step != done_ && !Evaluate(Usual(), false)) return false;
  const uint64_t tokens = std::max(kLastEvalTokens, tokens_ / 8);
  if (Usual().size() >= std::min(tokens, data_.validation.size())) return true;
  if (tokens >= data_.validation.size()) return Evaluate(data_.validation, true);
  return Evaluate(Excerpt(data_.validation, tokens), true);
}

void Trainer::Impl::Save() {
  const std::optional<double> val_loss = evaluated_.step == done_ ? evaluated_.loss : std::nullopt;
  const bool saved = saved_.step == done_ && (saved_.loss || !val_loss);
  if (setup_.run_folder.empty() || saved) return;
  TrainPlan given = plan_;
  given.ctx = given_ctx_;
  TrainingState state;
  state.step = done_;
  state.tokens = tokens_;
  state.seconds = Seconds();
  state.train_loss = train_loss_;
  state.best_val_loss = best_val_loss_;
  state.position = source_->position();
  state.data_hash = data_.hash;
  const std::string folder = record_->Save(
      given, *model_, tokenizer_, state,
      {Weights(), optimizer_->first_moments(), optimizer_->second_moments(), step_->StateTensors()},
      val_loss);
  saved_ = {done_, val_loss};
  observer_->OnSave(done_, folder);
}

FinishReport Trainer::Impl::Run() {
  if (!ready_) throw std::logic_error("Trainer: Run before Initialize or Resume");
  started_ = Now();
  FixLength();
  ChooseIntervals();
  if (!setup_.run_folder.empty()) {
    record_ = std::make_unique<TrainingRecord>(*setup_.files, setup_.run_folder, plan_, done_);
  }
  const int64_t stop_at =
      setup_.stop_after > 0 ? std::min(plan_.steps, done_ + setup_.stop_after) : plan_.steps;
  // The evaluation that an earlier stop came into.
  if (done_ > 0 && evaluated_.step != done_) {
    EvaluateWhereDue();
    Save();
  }
  while (done_ < stop_at && !Stopping()) {
    const StepReport report = DoStep();
    if (record_) record_->Step(report);
    observer_->OnStep(report);
    EvaluateWhereDue();
    // Weights after which steps are skipped may be beyond help: no earlier ones give way to them.
    const bool due = plan_.save_every > 0 && done_ % plan_.save_every == 0 && skipped_ == 0;
    if (due && done_ < plan_.steps) Save();
  }
  const bool finished = done_ >= plan_.steps && EvaluateLast();
  if (skipped_ == 0 || done_ >= plan_.steps || saved_.step < 0) {
    Save();
  } else {
    observer_->OnNotice(StrCat("the last steps were skipped, so the checkpoint of step ",
                               saved_.step, " stays the newest"));
  }
  std::optional<double> train_loss;  // none before the first step, where it is 0
  if (train_loss_ != 0) train_loss = train_loss_;
  const FinishReport report = {.step = done_,
                               .tokens = tokens_,
                               .seconds = Seconds(),
                               .train_loss = train_loss,
                               .val_loss = val_loss_,
                               .val_bits_per_byte = val_bits_,
                               .last_val_loss = evaluated_.loss,
                               .best_val_loss = best_val_loss_,
                               .peak_memory_bytes = runtime::PeakResidentBytes(),
                               .finished = finished};
  if (record_) record_->Finish(report);
  return report;
}

Trainer::Trainer(TrainPlan plan, const Tokenizer& tokenizer, const TrainData& data,
                 const TrainerSetup& setup)
    : impl_(std::make_unique<Impl>(std::move(plan), tokenizer, data, setup)) {}
Trainer::~Trainer() = default;
void Trainer::Initialize() { impl_->Initialize(); }
void Trainer::InitializeFrom(const ModelFile& file) { impl_->InitializeFrom(file); }
void Trainer::Resume(const Checkpoint& checkpoint) { impl_->Resume(checkpoint); }
FinishReport Trainer::Run() { return impl_->Run(); }
const TrainPlan& Trainer::plan() const { return impl_->plan_; }
const Model& Trainer::model() const { return *impl_->model_; }
const float* Trainer::weights() const { return impl_->weights_.Floats().data(); }
MemoryPlan Trainer::memory() const { return impl_->memory_; }

}  // namespace lanewise::model
