// What every training promises, over one list of models and settings: the same bits for any thread
// count, exact resume, no allocation in a step, memory as planned, losses that fall, skipped steps
// that are not finite.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <limits>

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
using testing::TinyRun;
using testing::TinyRuns;

std::vector<float> Copy(const Trainer& trainer) {
  return {trainer.weights(), trainer.weights() + trainer.model().params().buffer_size()};
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

TEST_CASE("a step does not allocate after the first") {
  const TinyData tiny;
  for (const TinyRun& run : TinyRuns(tiny.tokenizer->vocab_size())) {
    CAPTURE(run.name);
    for (const size_t threads : {1, 2}) {
      const runtime::Scheduler scheduler(threads);
      const auto model = MakeModel(run.plan.model, "test");
      std::vector<float> weights(model->params().buffer_size());
      model->Initialize("default", 1, weights);
      const StepShape shape{.sequences = static_cast<size_t>(run.plan.batch),
                            .steps = static_cast<size_t>(run.plan.ctx),
                            .carry_state = run.plan.carry_state,
                            .dropout = static_cast<float>(run.plan.dropout),
                            .recompute_layers = run.plan.recompute == "layer"};
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
        step.Accumulate(weights.data(), inputs, targets, 0.01F, 1, static_cast<uint32_t>(n), 0);
        step.Finish();
        optimizer.Update(n, {.lr = 1e-3}, 1.0, weights, step.gradients());
        step.Zero();
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
    std::vector<float> weights(model->params().buffer_size());
    model->Initialize("default", 1, weights);
    Session session(*model, weights.data(), scheduler);
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

TEST_CASE("batch-parallel and operation-parallel gradients agree") {
  const TinyData tiny;
  const runtime::Scheduler scheduler(2);
  for (const TinyRun& run : TinyRuns(tiny.tokenizer->vocab_size())) {
    if (run.plan.carry_state || run.plan.dropout > 0) continue;
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
    double difference = 0, norm = 0;
    for (size_t i = 0; i < model->params().buffer_size(); ++i) {
      const double a = static_cast<double>(sharded.gradients()[i]);
      const double b = static_cast<double>(single.gradients()[i]);
      difference += (a - b) * (a - b);
      norm += b * b;
    }
    CHECK(std::sqrt(difference / norm) < 1e-5);
  }
}

}  // namespace
}  // namespace lanewise::model
