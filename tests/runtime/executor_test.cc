// What the executor says of a run that cannot be, and what it runs with: its memory and profiler.
#include "runtime/executor.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <sstream>
#include <vector>

#include "runtime/arena.h"
#include "runtime/check.h"
#include "runtime/ops/add.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/head_cross_entropy.h"
#include "runtime/profiler.h"

namespace lanewise::runtime {
namespace {

TEST_CASE("an external tensor that was not bound is an error, unless it is optional") {
  Graph g;
  const size_t rows = 6;
  const TensorId ids = g.External("ids", rows, 1, DType::kInt32);
  const TensorId targets = g.External("targets", rows, 1, DType::kInt32);
  const TensorId scale = g.External("scale", 1, 1);
  const TensorId nll = g.External("nll", rows, 1), copy = g.External("copy", rows, 5);
  const TensorId x = Embedding(g, g.Parameter("table", 0, 7, 5, 5), ids);
  CopyTensor(g, x, copy);
  HeadCrossEntropy(g, {.x = x,
                       .w = g.Parameter("head", 35, 5, 7, 7),
                       .targets = targets,
                       .scale = scale,
                       .nll = nll,
                       .loss = g.External("loss", rows, 1)});
  g.Differentiate();
  const auto graph = std::make_shared<const Graph>(g);
  const auto plan = std::make_shared<const Plan>(MakePlan(g, 1));
  const std::vector<int32_t> tokens(rows, 1);
  const std::vector<float> weights(70, 0.1F);
  const float one = 1;
  std::vector<float> gradients(70), losses(rows), rows_out(rows * 5);
  const auto run = [&](TensorId missing) {
    Executor executor(graph, plan);
    executor.BindParameters(weights.data(), gradients.data());
    const auto bind = [&](TensorId id, const void* data) {
      if (id != missing) executor.Bind(id, data);
    };
    bind(ids, tokens.data());
    bind(targets, tokens.data());
    bind(scale, &one);
    bind(nll, losses.data());
    bind(copy, rows_out.data());
    executor.Run({});
  };
  CHECK_NOTHROW(run({}));  // the loss is optional
  CHECK_NOTHROW(run(nll));
  CHECK_THROWS_WITH_AS(run(ids), "embedding: ids has no memory: it was not bound", CheckError);
  CHECK_THROWS_WITH_AS(run(copy), "copy: copy has no memory: it was not bound", CheckError);
  for (const TensorId id : {targets, scale}) {
    CHECK_THROWS_WITH_AS(run(id), doctest::Contains("has no memory: it was not bound"), CheckError);
  }
}

TEST_CASE("more workers than the plan was made for are an error") {
  Graph g;
  CopyTensor(g, g.External("in", 4, 4), g.External("out", 4, 4));
  Executor executor(std::make_shared<const Graph>(g), std::make_shared<const Plan>(MakePlan(g, 1)));
  const Scheduler scheduler(2);
  CHECK_THROWS_WITH_AS(executor.Run(scheduler.All()),
                       "executor: a run with 2 workers, its plan is made for 1", CheckError);
}

TEST_CASE("a profiler without room for zones still sums") {
  Profiler profiler(0);
  const auto now = Profiler::Clock::now();
  profiler.Record("one", 0, now, now, {});
  std::ostringstream trace, summary;
  profiler.WriteTrace(trace);
  profiler.WriteSummary(summary, 0);
  CHECK(trace.str().find("one") == std::string::npos);
  CHECK(summary.str().find("one") != std::string::npos);
}

TEST_CASE("the largest arena that can be asked for is out of memory by its true size") {
  CHECK_THROWS_WITH_AS(Arena("everything", SIZE_MAX),
                       "out of memory: everything needs 17592186044416 MiB", OutOfMemory);
}

}  // namespace
}  // namespace lanewise::runtime
