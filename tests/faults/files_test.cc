// Every operation on files of a whole train-save-evaluate-resume cycle fails once, in every way;
// and the machine stops at every one. What was saved is never lost, and the run goes on to the same
// bits.
#include <doctest/doctest.h>

#include <cerrno>
#include <cmath>
#include <functional>

#include "model/error.h"
#include "model/run_log.h"
#include "tests/faults/cycle.h"
#include "tests/support/memory_files.h"
#include "tests/support/model_files.h"

namespace lanewise::testing {
namespace {

// What a cycle leaves when nothing disturbs it.
struct Undisturbed {
  explicit Undisturbed(const Cycle& cycle) {
    Saves saves;
    weights = cycle.Run(files, &saves);
    names = files.AllFiles();
  }
  MemoryFiles files;
  std::vector<float> weights;
  std::vector<std::string> names;
};

std::string Joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += name + "\n";
  return text;
}

// The newest checkpoint is whole and no older than `saved`; the run goes on to the same end, and
// leaves the same files.
void CheckGoesOn(const Cycle& cycle, const Undisturbed& undisturbed, MemoryFiles& files,
                 int64_t saved) {
  const model::CheckpointStore store(files, kCycleFolder, 1);
  const auto latest = store.Latest();
  CHECK((latest ? static_cast<int64_t>(latest->step) : 0) >= saved);
  for (const model::CheckpointInfo& info : store.List()) {
    CHECK(model::LoadCheckpoint(files, info.folder).step == info.step);
  }
  if (latest) CHECK(std::isfinite(cycle.Evaluate(files)));
  Saves saves;
  CHECK(cycle.Run(files, &saves) == undisturbed.weights);
  CHECK(Joined(files.AllFiles()) == Joined(undisturbed.names));
  CHECK(files.open_files() == 0);
  for (const char* name : {"LATEST", "BEST"}) {
    const std::string path = model::JoinPath(kCycleFolder, model::JoinPath("checkpoints", name));
    CHECK(files.Content(path) == undisturbed.files.Content(path));
  }
  const model::RunLogContent log =
      model::ReadRunLog(files, model::JoinPath(kCycleFolder, "log.jsonl"));
  CHECK(log.end.finished);
  REQUIRE(log.train.size() == static_cast<size_t>(cycle.plan.steps));
  for (size_t i = 0; i < log.train.size(); ++i)
    CHECK(log.train[i].step == static_cast<int64_t>(i) + 1);
}

// The daily sample takes every second or third place, the soak every one.
int Stride(int sample) { return Soak() ? 1 : sample; }

struct Fault {
  const char* name;
  std::function<void(MemoryFiles&, int)> arm;
  const char* message;  // of the error that it may lead to; null: it must go unnoticed
};

const std::vector<Fault> kFaults{
    {"EIO", [](MemoryFiles& files, int k) { files.FailAt(k, EIO); }, "Input/output error"},
    {"ENOSPC", [](MemoryFiles& files, int k) { files.FailAt(k, ENOSPC); },
     "No space left on device"},
    {"EINTR", [](MemoryFiles& files, int k) { files.FailAt(k, EINTR); }, nullptr},
    {"short count", [](MemoryFiles& files, int k) { files.ShortenAt(k); }, nullptr},
};

TEST_CASE("every operation fails once: an error that says so, nothing lost, the same end") {
  for (const std::string& kind : kKinds) {
    const Cycle cycle(kind);
    const Undisturbed undisturbed(cycle);
    const int operations = undisturbed.files.operations();
    int reported = 0;
    for (size_t f = 0; f < kFaults.size(); ++f) {
      const Fault& fault = kFaults[f];
      for (int k = static_cast<int>(f); k < operations; k += Stride(7)) {
        INFO(kind, ", ", std::string(fault.name), " at operation ", k);
        MemoryFiles files;
        fault.arm(files, k);
        Saves saves;
        std::string message;
        try {
          const std::vector<float> weights = cycle.Run(files, &saves);
          CHECK(weights == undisturbed.weights);
        } catch (const model::IoError& error) {
          message = error.what();
          CHECK(error.exit_code() == 4);
        }
        files.FailAt(-1, 0);
        CHECK(files.open_files() == 0);
        if (!message.empty()) {
          ++reported;
          REQUIRE(fault.message != nullptr);
          CHECK(Contains(message, fault.message));
          CHECK((Contains(message, "runs") || Contains(message, " .:")));
        }
        CheckGoesOn(cycle, undisturbed, files, saves.last);
      }
    }
    MESSAGE(kind, ": ", operations, " operations, every ", Stride(7), ". failed; ", reported,
            " reported");
  }
}

TEST_CASE(
    "a kill or a power cut at every operation: what was reported as saved is there, the same end") {
  for (const std::string& kind : kKinds) {
    const Cycle cycle(kind);
    const Undisturbed undisturbed(cycle);
    const int operations = undisturbed.files.operations();
    int first = 0;
    for (const Loss loss : {Loss::kNothing, Loss::kUnsynced, Loss::kContent}) {
      for (int k = first++; k < operations; k += Stride(5)) {
        INFO(kind, ", loss ", static_cast<int>(loss), " at operation ", k);
        MemoryFiles files;
        files.StopAt(k);
        Saves saves;
        // The last operations look at files and close them: a run may have come to its end without
        // them.
        const bool stopped = !Succeeds([&] { cycle.Run(files, &saves); });
        CHECK((stopped || saves.last == cycle.plan.steps));
        const std::unique_ptr<MemoryFiles> left = files.Restart(loss);
        CheckGoesOn(cycle, undisturbed, *left, saves.last);
      }
    }
    MESSAGE(kind, ": ", operations, " operations, stopped at every ", Stride(5), ".");
  }
}

TEST_CASE(
    "a disk that stays full: errors until there is room again, nothing lost, nothing left behind") {
  for (const std::string& kind : kKinds) {
    const Cycle cycle(kind);
    const Undisturbed undisturbed(cycle);
    MemoryFiles files;
    files.SetFreeSpace(1 << 20);
    Saves saves;
    size_t names = 0;
    for (int i = 0; i < 3; ++i) {
      const std::string message = MessageOf<model::IoError>([&] { cycle.Run(files, &saves); });
      CHECK(Contains(message, "are needed and 1.0 MiB are free"));
      CHECK((i == 0 || files.AllFiles().size() == names));
      names = files.AllFiles().size();
    }
    files.SetFreeSpace(int64_t{1} << 40);
    CheckGoesOn(cycle, undisturbed, files, saves.last);
  }
}

}  // namespace
}  // namespace lanewise::testing
