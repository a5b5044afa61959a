// What --resume takes and what it refuses.
#include <doctest/doctest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/apps/refusal.h"
#include "tests/apps/tiny_train.h"
#include "tests/support/process.h"

namespace {

using lanewise::testing::CheckRefusal;
using lanewise::testing::Contains;
using lanewise::testing::ReadWhole;
using lanewise::testing::RunResult;
using lanewise::testing::SomeText;
using lanewise::testing::Succeed;
using lanewise::testing::TemporaryFolder;
using lanewise::testing::Tiny;

}  // namespace

TEST_CASE("an old checkpoint that is damaged stops nobody, the newest says how to go on") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(50));
  const std::string run = folder / "run", checkpoints = run + "/checkpoints/";
  Succeed(Tiny(data, run, {"--steps", "4", "--save-every", "2"}));
  std::filesystem::resize_file(checkpoints + "step-000002/MANIFEST.json", 0);
  Succeed({"info", run});
  Succeed({"train", "--resume", run, "--steps", "6", "--save-every", "2"});
  std::filesystem::resize_file(checkpoints + "step-000006/MANIFEST.json", 0);
  CheckRefusal({"train", "--resume", run, "--steps", "8"}, 3,
               {"MANIFEST.json", "delete " + checkpoints + "step-000006 to go on"});
  std::filesystem::remove_all(checkpoints + "step-000006");
  Succeed({"train", "--resume", run, "--steps", "8"});
}

TEST_CASE("a run whose training state was deleted to save space is a model, not to be resumed") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(50)), run = folder / "run";
  Succeed(Tiny(data, run, {"--steps", "4", "--save-every", "2"}));
  CHECK(Contains(Succeed({"info", run}).output, "can be resumed"));
  for (const char* step : {"2", "4"}) {
    std::filesystem::remove(run + "/checkpoints/step-00000" + step + "/train_state.safetensors");
  }
  CHECK(nlohmann::json::parse(Succeed({"info", run, "--json"}).output)["can_resume"] == false);
  CHECK_FALSE(Contains(Succeed({"info", run}).output, "can be resumed"));
  CheckRefusal({"train", "--resume", run, "--steps", "6"}, 3,
               {"step-000004", "no training state (train_state.safetensors)", "--from"});
  Succeed({"train", "--from", run, "--data", data, "--out", folder / "more", "--steps", "2"});
}

TEST_CASE("a folder of texts stands in the settings as it was given") {
  const TemporaryFolder folder;
  const std::string texts = folder / "texts", run = folder / "run";
  for (const char* name : {"texts/a.txt", "texts/b.txt"}) folder.Write(name, SomeText(30));
  CHECK(Contains(Succeed(Tiny(texts, run, {"--steps", "2"})).messages, "2 files"));
  const auto config = nlohmann::json::parse(ReadWhole(run + "/config.json"));
  CHECK(config["training"]["data"] == nlohmann::json::array({texts}));
  Succeed({"train", "--resume", run, "--steps", "4"});
  folder.Write("texts/c.txt", "one more");
  CheckRefusal({"train", "--resume", run, "--steps", "6"}, 3, {"data", "--data"});
}

TEST_CASE("--resume=DIR says how it is written") {
  CheckRefusal({"train", "--resume=run"}, 2, {"write --resume run, without the ="});
}

TEST_CASE("--resume of a finished run prints its JSON again") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(50)), run = folder / "run";
  auto first = nlohmann::json::parse(Succeed(Tiny(data, run, {"--steps", "4", "--json"})).output);
  const RunResult again = Succeed({"train", "--resume", run, "--json"});
  auto second = nlohmann::json::parse(again.output, nullptr, false);
  REQUIRE(second.is_object());
  first.erase("seconds");  // which the log rounds
  second.erase("seconds");
  CHECK(second == first);
}

TEST_CASE("a run that was stopped in its last evaluation is not finished") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(50)), run = folder / "run";
  Succeed(Tiny(data, run, {"--steps", "4"}));
  CHECK(Contains(Succeed({"train", "--resume", run}).messages, "is finished"));
  const std::string log = ReadWhole(run + "/log.jsonl");
  const size_t end = log.rfind("\n", log.size() - 2) + 1;  // of all lines but the last
  folder.Write("run/log.jsonl", log.substr(0, end));
  CHECK(Contains(Succeed({"train", "--resume", run}).messages, "Done: 4 steps"));
  CHECK(Contains(ReadWhole(run + "/log.jsonl"), "\"finished\":true"));
}

TEST_CASE("an evaluation that comes before the first step knows where the run is") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(50)), run = folder / "run";
  Succeed(Tiny(data, run, {"--steps", "4", "--eval-every", "0", "--stop-after", "2"}));
  const auto resumed = Succeed({"train", "--resume", run, "--eval-every", "2"});
  CHECK(Contains(resumed.messages, "\nstep 2/4  train "));
  CHECK_FALSE(Contains(resumed.messages, "train 0.000"));
}

TEST_CASE("the command of a run whose text is shorter than --ctx goes on with --resume") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(9));
  for (const char* model : {"slot_rnn", "llama"}) {
    std::vector<std::string> words = Tiny(data, folder / model, {"--steps", "2"});
    words.insert(words.end(), {"--model", model, "--ctx", "512", "--stop-after", "1"});
    CHECK(Contains(Succeed(words).messages, "shorter than one window"));
    words.push_back("--resume");
    CHECK(Contains(Succeed(words).messages, "Done: 2 steps"));
  }
}

TEST_CASE("--resume tells seeds apart that are the same double") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(20)), run = folder / "run";
  Succeed(Tiny(data, run, {"--steps", "1", "--seed", "9007199254740993"}));
  const auto resume = [&](const std::string& seed) {
    return std::vector<std::string>{"train", "--resume", run, "--steps", "2", "--seed", seed};
  };
  CheckRefusal(resume("9007199254740992"), 2, {"--seed 9007199254740992", "9007199254740993"});
  Succeed(resume("09007199254740993"));
}

TEST_CASE("what --resume refuses, with both values") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(100));
  const std::string run = folder / "run";
  Succeed(Tiny(data, run, {"--steps", "3", "--lr", "0.006"}));
  const std::vector<std::string> resume = {"train", "--resume", run, "--steps", "6"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = resume;
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  CheckRefusal(with({"--lr", "0.01"}), 2, {"--lr 0.01", "0.006"});
  CheckRefusal(with({"--dim", "32"}), 2, {"--dim 32", "16"});
  CheckRefusal(with({"--batch", "8"}), 2, {"--batch 8", "4"});
  CheckRefusal(with({"--tokenizer", "byte"}), 2, {"byte", "char"});
  CheckRefusal(with({"--model", "llama"}), 2, {"llama", "slot_rnn"});
  CheckRefusal(with({"--seed", "7"}), 2, {"--seed 7", "1337"});
  CheckRefusal(with({"--eval-tokens", "99"}), 2, {"--eval-tokens 99", "2048"});
  CheckRefusal(with({"--data", folder.Write("other.txt", SomeText(50))}), 3, {"data"});
  CheckRefusal({"train", "--resume", folder / "none"}, 3, {"none"});
  CheckRefusal({"train", "--resume", folder.path()}, 3, {"checkpoint"});
  for (const char* part : {"/checkpoints/step-000003", "/checkpoints", "/checkpoints/."}) {
    CheckRefusal({"train", "--resume", run + part}, 3, {part, "lanewise train --resume " + run});
  }
  CheckRefusal(Tiny(data, run), 2, {"--resume"});
  CheckRefusal(with({"--no-carry-state"}), 2, {"--no-carry-state: ", "carry-state on"});
  // Of 0.05 times the rate, which is 0.00030000000000000003.
  CheckRefusal(with({"--min-lr", "0.1"}), 2, {"--min-lr 0.1: this run has 0.0003 and"});
  CheckRefusal(resume, 2, {"--lr 0.5", "0.006", "(--lr is set by", "LANEWISE_LR)"},
               {.environment = {{"LANEWISE_LR", "0.5"}}});
  CheckRefusal(resume, 2, {"(--no-carry-state is set by", "LANEWISE_CARRY_STATE)"},
               {.environment = {{"LANEWISE_CARRY_STATE", "0"}}});
  const std::string config = folder.Write("config.json", R"({"min_lr": 0.01, "lr": 20})");
  CheckRefusal(with({"--config", config, "--lr", "0.006"}), 2,
               {"--min-lr 0.01: must", "(--min-lr is set by " + config + ")"});
  CheckRefusal(with({"--config", config, "--min-lr", "0.0003"}), 2,
               {"--lr 20: must", "(--lr is set by " + config + ")"});
  Succeed(with({"--data", data, "--lr", "0.006", "--min-lr", "0.0003", "--eval-every", "2",
                "--threads", "1"}));
}
