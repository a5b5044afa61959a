// Memory is refused to the program, at every place of a start and of a step: it says so, with sizes
// and exit code 6, and the run goes on afterwards.
#include <doctest/doctest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "tests/faults/cycle.h"
#include "tests/faults/program.h"
#include "tests/support/model_files.h"
#include "tests/support/process.h"

namespace lanewise::testing {
namespace {

constexpr int kSteps = 2;
constexpr int kOutOfMemory = 6;

struct Refusals {
  Refusals(const std::string& model, const TemporaryFolder& folder)
      : kind(model),
        data(folder.Write(kind + ".txt", MadeUpText(300))),
        run(folder / (kind + "-run")),
        files(model::MakeSystemFiles()) {
    const RunResult whole = Run("LANEWISE_REFUSE_COUNT", 1);
    REQUIRE(whole.code == 0);
    const size_t counted = whole.messages.find("\ncounted ");
    REQUIRE(counted != std::string::npos);
    REQUIRE(std::sscanf(whole.messages.c_str() + counted, " counted %zu %zu", &allocations,
                        &blocks) == 2);
    model::RemoveTree(*files, run);
  }

  RunResult Run(const std::string& variable, size_t k) const {
    std::vector<std::string> words = TrainWords(kind, data, run, kSteps);
    words.push_back("--quiet");
    return RunLanewise(words, {.environment = {{"LD_PRELOAD", LANEWISE_REFUSE_MEMORY},
                                               {variable, std::to_string(k)}}});
  }

  // Returns whether the program noticed.
  bool Refuse(const std::string& variable, size_t k) {
    INFO(kind, ", ", variable, " ", k);
    const RunResult result = Run(variable, k);
    CAPTURE(result.messages);
    CHECK((result.code == kOutOfMemory || result.code == 0));
    if (result.code == kOutOfMemory) {
      CHECK(result.messages.starts_with("error: out of memory: "));
      CHECK((Contains(result.messages, " MiB") || Contains(result.messages, " GiB")));
      CHECK(result.messages.back() == '\n');
    }
    if (++refused % 16 == 0) {
      std::vector<std::string> words = TrainWords(kind, data, run, kSteps);
      if (model::CheckpointStore(*files, run, 1).Latest()) words.push_back("--resume");
      const RunResult after = RunLanewise(words);
      CAPTURE(after.messages);
      CHECK(after.code == 0);
      CHECK(model::CheckpointStore(*files, run, 1).Latest()->step == kSteps);
    }
    model::RemoveTree(*files, run);
    return result.code == kOutOfMemory;
  }

  std::string kind, data, run;
  std::unique_ptr<model::FileSystem> files;
  size_t allocations = 0, blocks = 0, refused = 0;
};

TEST_CASE("every block is refused once") {
  const TemporaryFolder folder;
  for (const std::string& kind : kKinds) {
    Refusals refusals(kind, folder);
    CHECK(refusals.blocks > 4);
    size_t noticed = 0;
    for (size_t k = 1; k <= refusals.blocks; ++k) {
      noticed += refusals.Refuse("LANEWISE_REFUSE_BLOCK", k) ? 1 : 0;
    }
    MESSAGE(kind, ": ", refusals.blocks, " blocks, ", refusals.refused, " of them refused, ",
            noticed, " noticed");
  }
}

TEST_CASE("allocations are refused") {
  const TemporaryFolder folder;
  for (const std::string& kind : kKinds) {
    Refusals refusals(kind, folder);
    size_t noticed = 0;
    // Primes: no two samples of a loop meet the same place.
    for (size_t k = 1; k <= refusals.allocations; k += Soak() ? 13 : 499) {
      noticed += refusals.Refuse("LANEWISE_REFUSE_NEW", k) ? 1 : 0;
    }
    MESSAGE(kind, ": ", refusals.allocations, " allocations, ", refusals.refused,
            " of them refused, ", noticed, " noticed");
  }
}

}  // namespace
}  // namespace lanewise::testing
