// What every training promises, over one list of models and settings: the same bits for any thread
// count, exact resume, no allocation in a step, memory as planned, losses that fall, skipped steps
// that are not finite.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <limits>
#include <stdexcept>

#include "kernels/bfloat16.h"
#include "kernels/matmul.h"
#include "model/checkpoint.h"
#include "model/error.h"
#include "model/optimizer.h"
#include "model/session.h"
#include "model/train_step.h"
#include "tests/support/counting_new.h"
#include "tests/support/model_files.h"
#include "tests/support/tiny_run.h"

namespace lanewise::model {
namespace {

using testing::TinyData;
using testing::TinyPlan;
using testing::TinyRun;
using testing::TinyRuns;

std::vector<float> Copy(const Trainer& trainer) {
  return {trainer.weights(), trainer.weights() + trainer.model().params().buffer_size()};
}

// Norm of a - b over that of b.
double RelativeDifference(std::span<const float> a, std::span<const float> b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    difference += (x - y) * (x - y);
    norm += y * y;
  }
  return std::sqrt(difference / norm);
}

// A run's weights as its products read them.
struct RunWeights {
  RunWeights(const Model& model, const TrainPlan& plan) : full(model.params().buffer_size()) {
    model.Initialize("default", 1, full);
    if (plan.dtype != "bf16") return;
    half.resize(full.size());
    kernels::RoundToBFloat16(full, half);
  }
  runtime::Weights view() const { return {full.data(), half.empty() ? nullptr : half.data()}; }
  std::vector<float> full;
  std::vector<kernels::BFloat16> half;
};

// Runs fn with each of the units that may multiply bf16 (in software where the CPU lacks it), or
// once for float32.
template <typename Fn>
void ForEachUnitOf(const TrainPlan& plan, Fn&& fn) {
  struct Restore {
    ~Restore() { kernels::ForceBf16Unit("auto"); }
  } restore;
  for (const std::string unit : {"float32", "dot", "amx"}) {
    CAPTURE(unit);
    REQUIRE(kernels::ForceBf16Unit(unit));
    fn();
    if (plan.dtype != "bf16") return;
  }
}

struct Losses : TrainObserver {
  void OnStep(const StepReport& report) override {
    losses.push_back(report.loss);
    skipped += report.skipped ? 1 : 0;
  }
  std::vector<double> losses;
  int skipped = 0;
};

TEST_CASE("the same weights for 1, 2, 3 and 8 threads, and losses that fall") {
  const TinyData tiny;
  for (const TinyRun& run : TinyRuns(tiny.tokenizer->vocab_size())) {
    CAPTURE(run.name);
    ForEachUnitOf(run.plan, [&] {
      std::vector<float> expected;
      for (const size_t threads : {1, 2, 3, 8}) {
        CAPTURE(threads);
        const runtime::Scheduler scheduler(threads);
        Losses losses;
        Trainer trainer(run.plan, *tiny.tokenizer, tiny.data,
                        {.scheduler = &scheduler, .observer = &losses});
        trainer.Initialize();
        const FinishReport report = trainer.Run();
        CHECK(report.finished);
        CHECK(report.val_loss.has_value());
        CHECK(losses.losses.back() < losses.losses.front() - 0.2);
        if (threads == 1) expected = Copy(trainer);
        CHECK(Copy(trainer) == expected);
      }
    });
  }
}

TEST_CASE("bf16 gradients are those of float32, but for roundings of 2^-9") {
  const TinyData tiny;
  const runtime::Scheduler scheduler(2);
  for (const TinyRun& run : TinyRuns(tiny.tokenizer->vocab_size())) {
    if (run.plan.dtype != "bf16") continue;
    CAPTURE(run.name);
    const auto model = MakeModel(run.plan.model, "test");
    const RunWeights weights(*model, run.plan);
    const auto rows = static_cast<size_t>(run.plan.batch);
    std::vector<int32_t> inputs(rows * 48), targets(rows * 48);
    BatchSource(tiny.data.train, {.rows = rows, .ctx = 48}).Next(inputs, targets);
    TrainStep exact(*model, scheduler, {.sequences = rows, .steps = 48});
    exact.Accumulate(weights.full.data(), inputs, targets, 1e-3F, 1, 1, 0);
    exact.Finish();
    ForEachUnitOf(run.plan, [&] {
      TrainStep step(*model, scheduler, {.sequences = rows, .steps = 48, .half_weights = true});
      step.Accumulate(weights.view(), inputs, targets, 1e-3F, 1, 1, 0);
      step.Finish();
      const double difference =
          RelativeDifference(step.gradients(), exact.gradients().first(weights.full.size()));
      CHECK(difference < 2e-2);
      CHECK(difference > 1e-5);  // the bf16 weights were read
    });
  }
}

TEST_CASE("stopped and resumed equals undisturbed, bit for bit") {
  const TinyData tiny;
  const auto files = MakeSystemFiles();
  const runtime::Scheduler scheduler(2);
  for (const TinyRun& run : TinyRuns(tiny.tokenizer->vocab_size())) {
    CAPTURE(run.name);
    const testing::TemporaryFolder folder;
    TrainerSetup setup{
        .files = files.get(), .run_folder = folder / "whole", .scheduler = &scheduler};
    Trainer whole(run.plan, *tiny.tokenizer, tiny.data, setup);
    whole.Initialize();
    whole.Run();
    setup.run_folder = folder / "parts";
    setup.stop_after = 7;  // not at a save, an evaluation or an end of the data
    {
      Trainer first(run.plan, *tiny.tokenizer, tiny.data, setup);
      first.Initialize();
      const FinishReport report = first.Run();
      CHECK_FALSE(report.finished);
      CHECK(report.step == 7);
    }
    setup.stop_after = 0;
    const CheckpointStore store(*files, setup.run_folder, 2);
    Trainer second(run.plan, *tiny.tokenizer, tiny.data, setup);
    second.Resume(LoadCheckpoint(*files, store.Latest()->folder));
    CHECK(second.Run().step == 12);
    CHECK(Copy(second) == Copy(whole));
    const Checkpoint a =
        LoadCheckpoint(*files, CheckpointStore(*files, folder / "whole", 2).Latest()->folder);
    const Checkpoint b = LoadCheckpoint(*files, store.Latest()->folder);
    for (const TensorView& tensor : a.train_tensors.tensors()) {
      CAPTURE(tensor.name);
      const TensorView* other = b.train_tensors.Find(tensor.name);
      REQUIRE(other != nullptr);
      CHECK(std::equal(tensor.bytes.begin(), tensor.bytes.end(), other->bytes.begin(),
                       other->bytes.end()));
    }
  }
}

TEST_CASE("a stop in an evaluation: resuming makes up for it") {
  struct StopInEvaluation final : TrainObserver {
    explicit StopInEvaluation(int at) : left(at) {}
    void OnEvaluateProgress(int64_t, double done) override {
      if (done == 0 && --left == 0) stop = 1;
    }
    int left;
    std::atomic<int> stop{0};
  };
  const TinyData tiny(6000);  // more to validate on than evaluations read while training
  const auto files = MakeSystemFiles();
  const runtime::Scheduler scheduler(2);
  TrainPlan plan = TinyRuns(tiny.tokenizer->vocab_size())[0].plan;
  plan.save_every = plan.eval_every;
  plan.keep = 9;
  const testing::TemporaryFolder folder;
  TrainerSetup setup{.files = files.get(), .run_folder = folder / "whole", .scheduler = &scheduler};
  Trainer whole(plan, *tiny.tokenizer, tiny.data, setup);
  whole.Initialize();
  whole.Run();
  const std::vector<CheckpointInfo> expected = CheckpointStore(*files, folder / "whole", 9).List();
  REQUIRE(expected.size() == 3);
  // The last one is over the whole split, and no checkpoint's.
  for (int evaluation = 1; evaluation <= 4; ++evaluation) {
    CAPTURE(evaluation);
    setup.run_folder = folder / std::to_string(evaluation);
    StopInEvaluation observer(evaluation);
    setup.observer = &observer;
    setup.stop = &observer.stop;
    {  // Windows replaces no file that is open
      Trainer first(plan, *tiny.tokenizer, tiny.data, setup);
      first.Initialize();
      const FinishReport stopped = first.Run();
      CHECK(observer.stop == 1);
      CHECK(stopped.step == std::min(12, 4 * evaluation));
      CHECK_FALSE(stopped.finished);
    }
    const CheckpointStore store(*files, setup.run_folder, 9);
    CHECK(store.Latest()->val_loss.has_value() == (evaluation == 4));

    setup.observer = nullptr;
    setup.stop = nullptr;
    Trainer second(plan, *tiny.tokenizer, tiny.data, setup);
    second.Resume(LoadCheckpoint(*files, store.Latest()->folder));
    CHECK(second.Run().finished);
    const std::vector<CheckpointInfo> all = store.List();
    REQUIRE(all.size() == expected.size());
    for (size_t i = 0; i < all.size(); ++i) {
      CHECK(all[i].step == expected[i].step);
      CAPTURE(i);
      REQUIRE(all[i].val_loss);
      CHECK(*all[i].val_loss == *expected[i].val_loss);
    }
    CHECK(store.Best()->step == CheckpointStore(*files, folder / "whole", 9).Best()->step);
  }
}

TEST_CASE("a checkpoint of other data is refused") {
  const TinyData tiny;
  const auto files = MakeSystemFiles();
  const runtime::Scheduler scheduler(1);
  const testing::TemporaryFolder folder;
  TrainerSetup setup{
      .files = files.get(), .run_folder = folder / "run", .scheduler = &scheduler, .stop_after = 2};
  const TrainPlan plan = TinyRuns(tiny.tokenizer->vocab_size())[0].plan;
  Trainer first(plan, *tiny.tokenizer, tiny.data, setup);
  first.Initialize();
  first.Run();
  TinyData other;
  other.data.hash = 78;
  Trainer second(plan, *other.tokenizer, other.data, setup);
  const std::string latest = CheckpointStore(*files, setup.run_folder, 2).Latest()->folder;
  CHECK_THROWS_AS(second.Resume(LoadCheckpoint(*files, latest)), InputError);
}

TEST_CASE("a trainer that is set up wrong says so, and touches nothing") {
  const TinyData tiny;
  const auto files = MakeSystemFiles();
  const runtime::Scheduler scheduler(1);
  const testing::TemporaryFolder folder;
  const TrainPlan plan = TinyRuns(tiny.tokenizer->vocab_size())[0].plan;
  const TrainerSetup setup{
      .files = files.get(), .run_folder = folder / "run", .scheduler = &scheduler, .stop_after = 1};
  Trainer first(plan, *tiny.tokenizer, tiny.data, setup);
  CHECK_THROWS_AS(first.Run(), std::logic_error);
  first.Initialize();
  first.Run();
  Trainer second(plan, *tiny.tokenizer, tiny.data, setup);
  CHECK_THROWS_AS(second.Initialize(), UsageError);
  CHECK_THROWS_AS(second.InitializeFrom(OpenModel(*files, setup.run_folder)), UsageError);

  const auto refused = [&](const TrainerSetup& wrong, const TrainData& data) {
    CHECK_THROWS_AS(Trainer(plan, *tiny.tokenizer, data, wrong), std::invalid_argument);
  };
  refused({.files = files.get()}, tiny.data);
  refused({.run_folder = folder / "other", .scheduler = &scheduler}, tiny.data);
  TrainData larger;
  larger.train = TokenArray(tiny.tokenizer->vocab_size() + 1);
  larger.train.Append(std::vector<int32_t>(100));
  refused({.scheduler = &scheduler}, larger);
}

TEST_CASE("a step does not allocate after the first") {
  const TinyData tiny;
  for (const TinyRun& run : TinyRuns(tiny.tokenizer->vocab_size())) {
    CAPTURE(run.name);
    for (const size_t threads : {1, 2}) {
      const runtime::Scheduler scheduler(threads);
      const auto model = MakeModel(run.plan.model, "test");
      RunWeights weights(*model, run.plan);
      const StepShape shape{.sequences = static_cast<size_t>(run.plan.batch),
                            .steps = static_cast<size_t>(run.plan.ctx),
                            .carry_state = run.plan.carry_state,
                            .dropout = static_cast<float>(run.plan.dropout),
                            .recompute_layers = run.plan.recompute == "layer",
                            .half_weights = run.plan.dtype == "bf16"};
      TrainStep step(*model, scheduler, shape);
      Optimizer optimizer(model->params(), scheduler);
      BatchSource source(
          tiny.data.train,
          {.rows = shape.sequences, .ctx = shape.steps, .sequential = shape.carry_state});
      std::vector<int32_t> inputs(shape.sequences * shape.steps), targets(inputs.size());
      size_t before = 0;
      for (int64_t n = 1; n <= 6; ++n) {
        if (n == 3) before = testing::AllocationCount();
        source.Next(inputs, targets);
        step.Accumulate(weights.view(), inputs, targets, 0.01F, 1, static_cast<uint32_t>(n), 0);
        step.Finish();
        optimizer.Update(n, {.lr = 1e-3}, 1.0, weights.full, step.gradients(), weights.half);
      }
      CHECK(testing::AllocationCount() == before);
    }
  }
}

TEST_CASE("a generated token does not allocate after the first") {
  const TinyData tiny;
  const runtime::Scheduler scheduler(2);
  for (const TinyRun& run : TinyRuns(tiny.tokenizer->vocab_size())) {
    CAPTURE(run.name);
    const auto model = MakeModel(run.plan.model, "test");
    const RunWeights weights(*model, run.plan);
    Session session(*model, weights.view(), scheduler);
    const std::vector<int32_t> prompt{1, 2, 3, 4, 5};
    session.Feed(prompt);
    session.Feed(std::span(prompt).first(1));
    const size_t before = testing::AllocationCount();
    for (int i = 0; i < 8; ++i) session.Feed(std::span(prompt).first(1));
    CHECK(testing::AllocationCount() == before);
  }
}

TEST_CASE("steps that are not finite are skipped; ten in a row end the training") {
  const TinyData tiny;
  const auto files = MakeSystemFiles();
  const runtime::Scheduler scheduler(2);
  for (TinyRun run : TinyRuns(tiny.tokenizer->vocab_size())) {
    CAPTURE(run.name);
    run.plan.steps = 40;
    run.plan.lr = run.plan.min_lr = 1e38;
    run.plan.warmup = 0;
    Losses losses;
    Trainer trainer(run.plan, *tiny.tokenizer, tiny.data,
                    {.scheduler = &scheduler, .observer = &losses});
    trainer.Initialize();
    CHECK_THROWS_AS(trainer.Run(), DivergedError);
    CHECK(losses.skipped >= 9);
    for (const float w : Copy(trainer)) CHECK_FALSE(std::isnan(w));
  }
}

TEST_CASE("a divergence says which checkpoint there is, and no skipped step has replaced it") {
  const TinyData tiny;
  const auto files = MakeSystemFiles();
  const runtime::Scheduler scheduler(2);
  const testing::TemporaryFolder folder;
  TrainerSetup setup{
      .files = files.get(), .run_folder = folder / "run", .scheduler = &scheduler, .stop_after = 2};
  TrainPlan plan = TinyRuns(tiny.tokenizer->vocab_size())[0].plan;
  {
    Trainer first(plan, *tiny.tokenizer, tiny.data, setup);
    first.Initialize();
    first.Run();
  }
  plan.steps = 40;
  plan.lr = plan.min_lr = 1e38;
  plan.warmup = 0;
  plan.save_every = plan.keep = 1;
  const auto newest = [&] { return *CheckpointStore(*files, setup.run_folder, 1).Latest(); };
  const auto resume = [&] {
    Trainer trainer(plan, *tiny.tokenizer, tiny.data, setup);
    trainer.Resume(LoadCheckpoint(*files, newest().folder));
    trainer.Run();
  };
  setup.stop_after = 6;
  resume();
  const uint64_t kept = newest().step;
  CHECK(kept < 8);
  setup.stop_after = 0;
  const std::string last = "the last checkpoint before is that of step " + std::to_string(kept);
  CHECK_THROWS_WITH_AS(resume(), doctest::Contains(last.c_str()), DivergedError);
  CHECK(newest().step == kept);
  plan.save_every = 0;
  setup.run_folder = folder / "fresh";
  Trainer fresh(plan, *tiny.tokenizer, tiny.data, setup);
  fresh.Initialize();
  CHECK_THROWS_WITH_AS(fresh.Run(), doctest::Contains("no checkpoint was saved before"),
                       DivergedError);
}

TEST_CASE("stopped before the first step there is no loss") {
  const TinyData tiny;
  const auto files = MakeSystemFiles();
  const runtime::Scheduler scheduler(2);
  const testing::TemporaryFolder folder;
  const std::atomic<int> stop{1};
  const TrainPlan plan = TinyRuns(tiny.tokenizer->vocab_size())[0].plan;
  Trainer trainer(
      plan, *tiny.tokenizer, tiny.data,
      {.files = files.get(), .run_folder = folder / "run", .scheduler = &scheduler, .stop = &stop});
  trainer.Initialize();
  const FinishReport report = trainer.Run();
  CHECK(report.step == 0);
  CHECK_FALSE(report.train_loss);
  CHECK(testing::ReadWhole(folder / "run/log.jsonl").find("\"train_loss\":null") !=
        std::string::npos);
}

TEST_CASE("the tokens of all batches of a step are in the memory plan") {
  const TinyData tiny;
  TrainPlan plan = TinyRuns(tiny.tokenizer->vocab_size())[0].plan;
  const uint64_t before = PlanMemory(plan, 1, 0).data;
  plan.grad_accum += 1000;
  CHECK(PlanMemory(plan, 1, 0).data - before ==
        static_cast<uint64_t>(1000 * plan.batch * plan.ctx) * 8);
}

TEST_CASE("the last evaluation reads all of the split, or what a short training has time for") {
  struct Reports final : TrainObserver {
    void OnEvaluate(const EvalReport& report) override { all.push_back(report); }
    std::vector<EvalReport> all;
  };
  const TinyData tiny(280'000);
  REQUIRE(tiny.data.validation.size() > (1 << 17) + 2000);
  TrainPlan plan = TinyPlan({{"model", "slot_rnn"},
                             {"vocab_size", tiny.tokenizer->vocab_size()},
                             {"layers", 1},
                             {"dim", 8},
                             {"heads", 2},
                             {"ctx", 16},
                             {"slots", 2},
                             {"decay_rank", 2},
                             {"ffn_mult", 1.5}},
                            2, 16);
  plan.steps = 2;
  plan.eval_every = 1;
  const runtime::Scheduler scheduler(1);
  for (const bool small : {false, true}) {
    CAPTURE(small);
    TrainData data = tiny.data;
    if (small) {
      std::vector<int32_t> ids(5000);
      tiny.data.validation.Copy(0, ids);
      data.validation = TokenArray(tiny.tokenizer->vocab_size());
      data.validation.Append(ids);
    }
    Reports reports;
    Trainer trainer(plan, *tiny.tokenizer, data, {.scheduler = &scheduler, .observer = &reports});
    trainer.Initialize();
    trainer.Run();
    REQUIRE(reports.all.size() == 3);
    for (size_t i = 0; i < 2; ++i) {
      CHECK(reports.all[i].tokens == 1024);
      CHECK_FALSE(reports.all[i].whole);
      CHECK_FALSE(reports.all[i].last);
    }
    CHECK(reports.all[2].tokens == (small ? 5000 : 1 << 17));
    CHECK(reports.all[2].whole == small);
    CHECK(reports.all[2].last);
    if (!small) continue;
    // As many as fit side by side.
    plan.eval_tokens = 4400;
    Reports more;
    Trainer again(plan, *tiny.tokenizer, data, {.scheduler = &scheduler, .observer = &more});
    again.Initialize();
    again.Run();
    CHECK(more.all[0].tokens == 4096);
  }
}

TEST_CASE("batch-parallel and operation-parallel gradients agree") {
  const TinyData tiny;
  const runtime::Scheduler scheduler(2);
  for (const TinyRun& run : TinyRuns(tiny.tokenizer->vocab_size())) {
    if (run.plan.carry_state || run.plan.dropout > 0 || run.plan.dtype != "float32") continue;
    CAPTURE(run.name);
    const auto model = MakeModel(run.plan.model, "test");
    std::vector<float> weights(model->params().buffer_size());
    model->Initialize("default", 1, weights);
    const size_t rows = 16;
    std::vector<int32_t> inputs(rows * 48), targets(rows * 48);
    BatchSource source(tiny.data.train, {.rows = rows, .ctx = 48});
    source.Next(inputs, targets);
    TrainStep sharded(*model, scheduler, {.sequences = rows, .steps = 48});
    REQUIRE(sharded.shards() > 1);
    sharded.Accumulate(weights.data(), inputs, targets, 1e-3F, 1, 1, 0);
    sharded.Finish();
    // One sequence at a time is operation-parallel.
    TrainStep single(*model, scheduler, {.sequences = 1, .steps = 48});
    REQUIRE(single.shards() == 1);
    for (size_t r = 0; r < rows; ++r) {
      single.Accumulate(weights.data(), std::span(inputs).subspan(r * 48, 48),
                        std::span(targets).subspan(r * 48, 48), 1e-3F, 1, 1, 0);
    }
    single.Finish();
    CHECK(RelativeDifference(sharded.gradients(), single.gradients()) < 1e-5);
    // With the zeros of an update in gradients(), the next step begins at zero in every shard.
    const std::vector<float> before(sharded.gradients().begin(), sharded.gradients().end());
    std::ranges::fill(sharded.gradients(), 0.0F);
    sharded.Accumulate(weights.data(), inputs, targets, 1e-3F, 1, 1, 0);
    sharded.Finish();
    CHECK(std::ranges::equal(sharded.gradients(), before));
  }
}

}  // namespace
}  // namespace lanewise::model
