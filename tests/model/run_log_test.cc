#include "model/run_log.h"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>

#include "tests/support/memory_files.h"
#include "tests/support/temporary_folder.h"

namespace lanewise::model {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

class Folder : public testing::TemporaryFolder {
 public:
  std::string log() const { return *this / "log.jsonl"; }
  std::string Text() const { return testing::ReadWhole(log()); }
  std::vector<Json> Records() const {
    std::vector<Json> records;
    std::istringstream in(Text());
    for (std::string line; std::getline(in, line);) records.push_back(Json::parse(line));
    return records;
  }
  void Append(const std::string& bytes) const {
    std::ofstream(log(), std::ios::binary | std::ios::app) << bytes;
  }
};

StepReport StepAt(int64_t step, double loss) {
  return {.step = step,
          .steps = 100,
          .loss = loss,
          .lr = 0.1 / 3,
          .grad_norm = 1.25,
          .tokens = static_cast<uint64_t>(step) * 2048,
          .tokens_per_second = 41'234.56,
          .mfu = 0.43219,
          .seconds = 0.05 * static_cast<double>(step),
          .seconds_left = 1,
          .skipped = false};
}

EvalReport EvalAt(int64_t step, double loss) {
  return {.step = step,
          .val_loss = loss,
          .val_bits_per_byte = loss / std::log(2.0),
          .tokens = 111'540,
          .sample = ""};
}

FinishReport FinishAt(int64_t step) {
  FinishReport report;
  report.step = step;
  report.tokens = 4096;
  report.peak_memory_bytes = 1'000'000;
  report.finished = true;
  return report;
}

TEST_CASE("each record has its fields and is on the disk at once") {
  const Folder folder;
  const auto files = MakeSystemFiles();
  RunLog log(*files, folder.log(), 0);
  CHECK(folder.Text().empty());
  const double loss = 1.0 / 3;
  log.Step(StepAt(1, loss));
  REQUIRE(folder.Records().size() == 1);
  const Json step = folder.Records()[0];
  CHECK(step == Json{{"step", 1},
                     {"loss", loss},
                     {"lr", 0.1 / 3},
                     {"grad_norm", 1.25},
                     {"tokens", 2048},
                     {"tokens_per_second", 41'234.6},
                     {"mfu", 0.4322},
                     {"seconds", 0.05}});
  CHECK(folder.Text().starts_with("{\"step\":1,\"loss\":0.3333333333333333,"));
  log.Evaluate(EvalAt(1, 2.5));
  CHECK(folder.Records()[1] == Json{{"step", 1},
                                    {"val_loss", 2.5},
                                    {"val_bits_per_byte", 2.5 / std::log(2.0)},
                                    {"val_tokens", 111'540}});
  FinishReport finish = FinishAt(2);
  finish.best_val_loss = 2.25;
  log.Finish(finish);
  const Json end = folder.Records()[2];
  CHECK(end["steps"] == 2);
  CHECK(end["tokens"] == 4096);
  CHECK(end["best_val_loss"] == 2.25);
  CHECK(end["final_val_loss"].is_null());
  CHECK(end["peak_memory_bytes"] == 1'000'000);
  CHECK(end["finished"] == true);
}

TEST_CASE("what is not finite is null; samples may hold any bytes; extremes fit") {
  const Folder folder;
  const auto files = MakeSystemFiles();
  RunLog log(*files, folder.log(), 0);
  StepReport step = StepAt(1, kNan);
  step.grad_norm = std::numeric_limits<double>::infinity();
  step.skipped = true;
  log.Step(step);
  step = StepAt(int64_t{1} << 50, -1.2345678901234567e-300);  // the most that a plan may have
  step.lr = step.grad_norm = step.tokens_per_second = step.mfu = step.seconds = step.loss;
  step.tokens = std::numeric_limits<uint64_t>::max();
  log.Step(step);
  EvalReport eval = EvalAt(1, 2.5);
  eval.sample = "caf\xE9 \"and\" more\n\xC3\xA9";
  eval.best = eval.whole = true;
  log.Evaluate(eval);
  const std::vector<Json> records = folder.Records();
  REQUIRE(records.size() == 3);
  CHECK(records[0]["loss"].is_null());
  CHECK(records[0]["grad_norm"].is_null());
  CHECK(records[0]["skipped"] == true);
  CHECK(records[1]["loss"] == -1.2345678901234567e-300);
  CHECK(records[1]["tokens"] == std::numeric_limits<uint64_t>::max());
  CHECK(records[2]["sample"].get<std::string>().ends_with("\"and\" more\n\xC3\xA9"));
  CHECK(records[2]["best"] == true);
  const RunLogContent content = ReadRunLog(*files, folder.log());
  REQUIRE(content.train.size() == 2);
  CHECK(std::isnan(content.train[0].loss));
}

TEST_CASE("a new run starts a new log") {
  const Folder folder;
  const auto files = MakeSystemFiles();
  RunLog(*files, folder.log(), 0).Step(StepAt(1, 4));
  RunLog(*files, folder.log(), 0).Step(StepAt(1, 5));
  REQUIRE(folder.Records().size() == 1);
  CHECK(folder.Records()[0]["loss"] == 5);
}

TEST_CASE("resuming removes what came after the checkpoint: no step appears twice") {
  const Folder folder;
  const auto files = MakeSystemFiles();
  {
    RunLog log(*files, folder.log(), 0);
    for (int64_t s = 1; s <= 7; ++s) {
      log.Step(StepAt(s, 4));
      if (s % 2 == 0) log.Evaluate(EvalAt(s, 4));
    }
    log.Finish(FinishAt(7));
  }
  folder.Append("no record\n[1]\n{\"step\":3}\n\n{\"step\":8,\"los");
  {
    RunLog log(*files, folder.log(), 4);
    for (int64_t s = 5; s <= 8; ++s) log.Step(StepAt(s, 3));
    log.Finish(FinishAt(8));
  }
  const RunLogContent content = ReadRunLog(*files, folder.log());
  REQUIRE(content.train.size() == 8);
  for (size_t i = 0; i < 8; ++i) {
    CHECK(content.train[i].step == static_cast<int64_t>(i) + 1);
    CHECK(content.train[i].loss == (i < 4 ? 4 : 3));
  }
  REQUIRE(content.validation.size() == 2);
  CHECK(content.validation[1].step == 4);
  CHECK(content.last_step == 8);
  CHECK(content.tokens == 8 * 2048);
  CHECK(content.end.finished);
  CHECK(folder.Records().size() == 8 + 2 + 1);  // and nothing else is left
  size_t ends = 0;
  for (const Json& record : folder.Records()) ends += record.contains("peak_memory_bytes");
  CHECK(ends == 1);
}

TEST_CASE("a missing log is empty, also to resume; damaged ones are read as far as they can be") {
  const Folder folder;
  const auto files = MakeSystemFiles();
  CHECK(ReadRunLog(*files, folder.log()).train.empty());
  RunLog(*files, folder.log(), 10).Step(StepAt(11, 4));
  folder.Append(
      "{\"step\":-1,\"loss\":1}\n{\"step\":1e400,\"loss\":1}\n{\"step\":12,\"loss\":\"x\"}\n");
  folder.Append(
      "{\"step\":18446744073709551615,\"loss\":1}\n{\"step\":13,\"loss\":1,\"tokens\":1e300}\n");
  folder.Append(std::string(100'000, '[') + "\n\xFF\xFE\n{\"step\":14,\"val_loss\":3}\n");
  folder.Append("{\"step\":14,\"val_loss\":2}\n{\"step\":15,\"loss\":1}");
  const RunLogContent content = ReadRunLog(*files, folder.log());
  REQUIRE(content.train.size() == 3);
  CHECK(content.train[0].step == 11);
  CHECK(std::isnan(content.train[1].loss));
  CHECK(content.train[2].step == 13);
  REQUIRE(content.validation.size() == 1);
  CHECK(content.validation[0].loss == 2);
  CHECK_FALSE(content.end.finished);
}

TEST_CASE("a log is read in pieces, so that none is too long") {
  constexpr int64_t kSteps = 10'000;
  std::string text;
  for (int64_t s = 1; s <= kSteps; ++s) {
    text += "{\"step\":" + std::to_string(s) + ",\"loss\":1.5,\"tokens\":7}\n";
  }
  testing::MemoryFiles files;
  files.SetContent("log.jsonl", text + std::string(3 << 20, 'x') + "\n" + text);
  CHECK(ReadRunLog(files, "log.jsonl").train.size() == 2 * kSteps);
  RunLog(files, "log.jsonl", kSteps);
  CHECK(files.Content("log.jsonl") == text + text);
  CHECK(files.largest_read() <= 1 << 16);
}

}  // namespace
}  // namespace lanewise::model
