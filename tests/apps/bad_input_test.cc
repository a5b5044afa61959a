// What people give a program by mistake, and machines that refuse it: each with its message and
// exit code.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "tests/apps/refusal.h"
#include "tests/support/process.h"

namespace {

using lanewise::testing::CheckRefusal;
using lanewise::testing::CheckRefused;
using lanewise::testing::Contains;
using lanewise::testing::ReadWhole;
using lanewise::testing::RunLanewise;
using lanewise::testing::RunOptions;
using lanewise::testing::RunProcess;
using lanewise::testing::RunResult;
using lanewise::testing::TemporaryFolder;

const std::string kGolden = std::string(LANEWISE_SOURCE_DIR) + "/tests/golden/";
const std::string kProgram = std::string(LANEWISE_BINARY_DIR) + "/lanewise";
const std::string kRnn = kGolden + "slot_rnn/char.bin";
const std::string kLlama = kGolden + "llama/llama_gqa_tied.bin";

std::string SomeText() {
  std::string text;
  for (int i = 0; i < 60; ++i)
    text += "the quick brown fox " + std::to_string(i * 37 % 101) + " jumps\n";
  return text;
}

std::vector<std::string> Tiny(const std::string& data, const std::string& out,
                              const std::vector<std::string>& more = {}) {
  std::vector<std::string> words = {"train", "--data",    data, "--out",   out,  "--tokenizer",
                                    "char",  "--layers",  "1",  "--dim",   "16", "--heads",
                                    "2",     "--ctx",     "16", "--batch", "4",  "--steps",
                                    "3",     "--threads", "1"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

// As a user who may not do everything: root may read any file.
RunResult RunUnprivileged(std::vector<std::string> words) {
  words.insert(words.begin(), kProgram);
  if (geteuid() == 0) {
    words.insert(words.begin(),
                 {"/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"});
  }
  return RunProcess(words);
}

}  // namespace

TEST_CASE("files and folders that this user may not use") {
  if (RunUnprivileged({"--version"}).code != 0) {
    MESSAGE("skipped: no other user can run the program here");
    return;
  }
  using std::filesystem::perms;
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText());
  const std::string closed = folder.Write("closed.txt", SomeText());
  // A copy: the project itself may lie in a folder that is closed to others.
  const std::string model = folder.Write("char.bin", ReadWhole(kRnn));
  const std::string closed_folder = folder / "closed";
  std::filesystem::create_directory(closed_folder);
  std::filesystem::permissions(folder.path(), perms::owner_all | perms::group_read |
                                                  perms::group_exec | perms::others_read |
                                                  perms::others_exec);
  for (const std::string& path : {closed, closed_folder})
    std::filesystem::permissions(path, perms::none);
  const std::string out = folder / "run";
  for (const std::string& path : {closed, closed_folder}) {
    CheckRefused(RunUnprivileged(Tiny(path, "/nowhere/run")), 3,
                 {path, "permission", "change its permissions"});
    CheckRefused(RunUnprivileged({"eval", model, "--data", path}), 3, {path, "permission"});
    CheckRefused(RunUnprivileged({"info", path}), 3, {path, "permission"});
  }
  CheckRefused(RunUnprivileged(Tiny(data, closed_folder + "/run")), 4,
               {closed_folder, "Permission denied", "may be written"});
  // The folder is not this user's: nothing can be made in it.
  if (geteuid() == 0) {
    CheckRefused(RunUnprivileged(Tiny(data, out)), 4, {out, "Permission denied", "may be written"});
    CheckRefused(RunUnprivileged({"convert", model, folder / "m.bin"}), 4,
                 {"m.bin", "Permission denied"});
  }
}

TEST_CASE("a full disk") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText());
  const std::string disk = folder / "disk";
  std::filesystem::create_directory(disk);
  std::string command =
      "mount -t tmpfs -o size=300k none " + disk + " || exit 99; exec " + kProgram;
  for (const std::string& word : Tiny(data, disk + "/run")) command += " " + word;
  const RunResult result = RunProcess({"/usr/bin/unshare", "-m", "/bin/sh", "-c", command});
  if (result.code != 4 && !Contains(result.messages, "error: ")) {
    MESSAGE("skipped: this user cannot mount a small disk");
    return;
  }
  CHECK(result.code == 4);
  for (const char* part : {"error: ", "/run", "are needed", "are free", "free some space"}) {
    CHECK(Contains(result.messages, part));
  }
}

TEST_CASE("folders where files are expected, and files where folders are") {
  const TemporaryFolder folder;
  const std::string file = folder.Write("file.txt", SomeText());
  const std::string expected = "is a folder where a file is expected";
  CheckRefusal({"generate", kRnn, "--prompt-file", folder.path()}, 3, {folder.path(), expected});
  CheckRefusal({"eval", kRnn, "--token-ids", folder.path()}, 3, {folder.path(), expected});
  CheckRefusal({"plan", "--config", folder.path()}, 3, {folder.path(), expected});
  CheckRefusal(Tiny(file, file + "/run"), 4, {file, "is a file where a folder is expected"});
  CheckRefusal({"train", "--resume", file}, 3, {file, "folder"});
}

TEST_CASE("folders and files beside a model say where the model is") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText());
  const std::string run = folder / "run";
  REQUIRE(RunLanewise(Tiny(data, run)).code == 0);
  folder.Write("model.bin", ReadWhole(kRnn));
  folder.Write("other.bin", "no model");
  CheckRefusal({"info", folder.path()}, 3,
               {"name one of them: " + (folder / "model.bin") + ", " + run + "\n"});
  CheckRefusal({"info", run + "/checkpoints"}, 3, {"a run's checkpoints", "step-"});
  CheckRefusal({"info", run + "/checkpoints/step-000003/train_state.safetensors"}, 3,
               {"state of a training", run + "/checkpoints/step-000003"});
}

TEST_CASE("what is written at the end needs its folder at the start") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText());
  const std::string none = folder / "none";
  CheckRefusal({"generate", kRnn, "--prompt", "x", "--save-state", none + "/state"}, 2,
               {"there is no folder " + none});
  CheckRefusal(Tiny(data, folder / "a", {"--profile", none + "/trace.json"}), 2,
               {"there is no folder " + none});
  CHECK_FALSE(std::filesystem::exists(folder / "a"));
  CheckRefusal({"generate", kRnn, "--prompt", "x", "--save-state", folder.path()}, 2,
               {folder.path() + " is a folder; name a file"});
  CheckRefusal({"convert", kRnn, ""}, 2, {"OUT is empty"});
}

TEST_CASE("outputs that would replace what the program did not write are refused") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText());
  const std::vector<std::string> generate = {"generate", kRnn, "--prompt",    "x",
                                             "--tokens", "2",  "--save-state"};
  const auto save = [&](const std::string& path) {
    std::vector<std::string> words = generate;
    words.push_back(path);
    return RunLanewise(words);
  };
  CheckRefused(save(data), 2, {data + " exists and is no state saved by generate"});
  const std::string empty = folder.Write("empty", "");
  CHECK(save(empty).code == 0);
  CHECK(save(empty).code == 0);  // a state now

  const std::string run = folder / "run", trace = folder / "trace.json";
  CheckRefusal(Tiny(data, run, {"--profile", data}), 2, {data + " exists and is no trace"});
  CHECK(ReadWhole(data) == SomeText());
  for (const char* name : {"log.jsonl", "loss.svg", "tokenizer.json", "config.json"}) {
    const std::string mine = folder.Write(std::string(name) + ".d/" + name, "mine");
    CheckRefusal(Tiny(data, folder / (std::string(name) + ".d")), 2,
                 {std::string("holds a ") + name + " that is not of a run"});
    CHECK(ReadWhole(mine) == "mine");
  }
  // What a run without a checkpoint left is its own.
  folder.Write("run/.lock", "");
  folder.Write("run/log.jsonl", "{}\n");
  CHECK(RunLanewise(Tiny(data, run, {"--profile", trace})).code == 0);
  CHECK(RunLanewise({"train", "--resume", run, "--steps", "6", "--profile", trace}).code == 0);
}

TEST_CASE("outputs: pipes are refused before anything is computed, links are followed") {
  const TemporaryFolder folder;
  const std::string pipe = folder / "pipe.bin";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  const std::string refused = pipe + " is a device or a pipe";
  CheckRefusal({"generate", kRnn, "--prompt", "x", "--save-state", pipe}, 2, {refused});
  CheckRefusal({"bench", "decode", "--from", kRnn, "--profile", pipe}, 2, {refused});
  CheckRefusal({"convert", kRnn, pipe, "--force"}, 2, {refused});
  CheckRefusal({"generate", kRnn, "--prompt", "x", "--save-state", "/dev/stdout"}, 2,
               {"/dev/stdout is a device or a pipe"});
  CHECK(std::filesystem::is_fifo(pipe));
  std::filesystem::create_directory(folder / "elsewhere");
  std::filesystem::create_symlink("elsewhere/state", folder / "link");
  const std::vector<std::string> generate = {"generate", kRnn, "--tokens", "2", "--prompt", "x"};
  std::vector<std::string> save = generate, load = generate;
  save.insert(save.end(), {"--save-state", folder / "link"});
  load.insert(load.end(), {"--load-state", folder / "elsewhere/state"});
  CHECK(RunLanewise(save).code == 0);
  CHECK(std::filesystem::is_symlink(folder / "link"));
  CHECK(RunLanewise(load).code == 0);
}

TEST_CASE("a path that the environment or a file gave says so") {
  const TemporaryFolder folder;
  const std::string none = folder / "none.txt", run = folder / "run";
  CheckRefusal({"train", "--out", run}, 3, {none, "(--data is set by", "LANEWISE_DATA)"},
               {.environment = {{"LANEWISE_DATA", none}}});
  const std::string config = folder.Write("config.json", R"({"data": ")" + none + R"("})");
  CheckRefusal({"train", "--out", run, "--config", config}, 3,
               {none, "(--data is set by " + config + ")"});
  const std::string file = folder.Write("file", "not a folder");
  CheckRefusal({"train", "--data", config}, 2, {file, "(--out is set by", "LANEWISE_OUT)"},
               {.environment = {{"LANEWISE_OUT", file}}});
}

TEST_CASE("an option that the environment or a file gave says so where it is refused") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText()), run = folder / "run";
  CheckRefusal({"generate", kRnn, "--save-state", folder / "state"}, 2, {"LANEWISE_BATCH"},
               {.environment = {{"LANEWISE_BATCH", "4"}}});
  const std::string config = folder.Write("config.json", R"({"steps": 2, "minutes": 1})");
  CheckRefusal({"train", "--data", data, "--out", run, "--config", config}, 2,
               {"--steps is set by " + config, "--minutes is set by " + config});
  REQUIRE(RunLanewise(Tiny(data, run)).code == 0);
  CheckRefusal({"train", "--resume", run}, 2, {"step 3 already", "--steps", "LANEWISE_STEPS"},
               {.environment = {{"LANEWISE_STEPS", "2"}}});
}

TEST_CASE("a signal ends the wait for a text that nobody writes, and what only measures") {
  const TemporaryFolder folder;
  const std::string pipe = folder / "pipe";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  const auto stopped = [&](const std::string& signal, const std::vector<std::string>& words) {
    // Without --foreground the program would have the signal twice, and end without a word.
    std::vector<std::string> all = {
        "/usr/bin/timeout", "--foreground", "--preserve-status", "-s", signal, "0.5", kProgram};
    all.insert(all.end(), words.begin(), words.end());
    const RunResult result = RunProcess(all);
    CHECK(Contains(result.messages, "Stopped by"));
    return result.code;
  };
  CHECK(stopped("INT", {"eval", kRnn, "--data", pipe}) == 130);
  CHECK(stopped("TERM", {"generate", kRnn, "--prompt-file", pipe}) == 143);
  CHECK(stopped("TERM", {"plan", "--data", pipe}) == 143);
  CHECK(stopped("INT", {"plan", "--steps", "1"}) == 130);
  CHECK(stopped("TERM", {"bench", "train"}) == 143);
}

TEST_CASE("the limit of a file's size is an error like others") {
  const TemporaryFolder folder;
  const RunResult result = RunProcess({"/bin/sh", "-c", "ulimit -f 1; exec \"$0\" \"$@\"", kProgram,
                                       "convert", kRnn, folder / "x.bin"});
  CAPTURE(result.messages);
  CHECK(result.code == 4);
  CHECK(Contains(result.messages, "x.bin"));
  CHECK_FALSE(std::filesystem::exists(folder / ".tmp-x.bin"));
}

TEST_CASE("threads that the system refuses are an error like others") {
  if (RunUnprivileged({"--version"}).code != 0) {
    MESSAGE("skipped: no other user can run the program here");
    return;
  }
  std::vector<std::string> words = {"/usr/bin/prlimit", "--nproc=3", kProgram, "plan",
                                    "--threads",        "8",         "--dim",  "16"};
  if (geteuid() == 0) {  // has no such limit
    words.insert(words.begin(),
                 {"/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"});
  }
  CheckRefused(RunProcess(words), 6, {"threads", "--threads"});
}

TEST_CASE("a training that cannot write says which checkpoint is left") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText()), run = folder / "run";
  const auto limited = [](const std::vector<std::string>& words) {
    std::vector<std::string> all = {"/bin/sh", "-c", "ulimit -f 4; exec \"$0\" \"$@\"", kProgram};
    all.insert(all.end(), words.begin(), words.end());
    const RunResult result = RunProcess(all);
    CHECK(result.code == 4);
    return result.messages;
  };
  CHECK(Contains(limited(Tiny(data, run)), "no checkpoint was saved before"));
  REQUIRE(RunLanewise(Tiny(data, run)).code == 0);
  CHECK(Contains(
      limited({"train", "--resume", run, "--steps", "6"}),
      "the checkpoint of step 3 is intact, go on from it with: lanewise train --resume " + run));
}

TEST_CASE("a training does not read standard input, nor writes among the texts it reads") {
  const TemporaryFolder folder;
  const std::string text = folder.Write("texts/a.txt", SomeText()), texts = folder / "texts";
  for (const std::string& out : {texts, texts + "/.", texts + "/"}) {
    CheckRefusal(Tiny(texts, out), 2, {"--out " + out, "texts itself", "run"});
  }
  REQUIRE(RunLanewise(Tiny(texts, texts + "/run")).code == 0);
  CHECK(RunLanewise({"train", "--resume", texts + "/run", "--steps", "4"}).code == 0);
  CheckRefusal(Tiny("-", folder / "a"), 2, {"--data -", "save it in a file"});
}

TEST_CASE("options that mean nothing for a model are said to") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", "some text to read");
  const RunResult eval = RunLanewise({"eval", kRnn, "--data", data, "--ctx", "4"});
  CHECK(eval.code == 0);
  CHECK(Contains(eval.messages, "--ctx and --stride are for llama"));
  const RunResult text =
      RunLanewise({"generate", kRnn, "--prompt", "x", "--tokens", "2", "--slide"});
  CHECK(text.code == 0);
  CHECK(Contains(text.messages, "--slide is for llama"));
  const RunResult twice = RunLanewise({"eval", kRnn, "--data", data, "--data", data});
  CHECK(twice.code == 0);
  CHECK(Contains(twice.messages, "given more than once"));
  CHECK_FALSE(Contains(twice.messages, "validation"));
  const RunResult split =
      RunLanewise({"plan", "--data", folder / "text.txt", folder / "./text.txt", "--steps", "1"});
  CHECK(Contains(split.messages, (folder / "./text.txt") + ": is given more than once"));
  CHECK(Contains(split.messages, "validation of what was trained on"));
}

TEST_CASE("texts of odd lengths say what happens") {
  const TemporaryFolder folder;
  CheckRefusal(Tiny(folder.Write("empty.txt", ""), folder / "a"), 3, {"empty.txt", "empty"});
  CheckRefusal(Tiny(folder.Write("one.txt", "x"), folder / "a"), 3,
               {"one.txt", "more text is needed"});
  const RunResult shorter = RunLanewise(
      Tiny(folder.Write("short.txt", "just a few words"), folder / "short", {"--ctx", "64"}));
  CHECK(shorter.code == 0);
  CHECK(Contains(shorter.messages, "shorter than one window"));
  const RunResult same =
      RunLanewise(Tiny(folder.Write("same.txt", std::string(400, 'a')), folder / "same"));
  CAPTURE(same.messages);
  CHECK(same.code == 0);
  const RunResult text =
      RunLanewise({"generate", folder / "same", "--prompt", "a", "--tokens", "9"});
  CHECK(text.output == "aaaaaaaaaa\n");
}

TEST_CASE(
    "more memory than the machine has is refused with the figure and what would make it fit") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText());
  CheckRefusal(Tiny(data, folder / "a", {"--dim", "65536", "--layers", "50"}), 6,
               {"this training needs", "iB", "the machine has", "only a smaller model", "--dim"});
  const std::vector<std::string> batch = {"--batch", "65536", "--ctx",      "1000",
                                          "--dim",   "4096",  "--recompute"};
  const auto with = [&](const std::string& how) {
    std::vector<std::string> words = Tiny(data, folder / "a", batch);
    words.push_back(how);
    return words;
  };
  CheckRefusal(with("none"), 6,
               {"this training needs", "the machine has", "--batch or --ctx, --recompute layer"});
  CheckRefusal(with("layer"), 6, {"a smaller --batch or --ctx, or a smaller model"});
  CHECK_FALSE(std::filesystem::exists(folder / "a"));
}

TEST_CASE("names that are none, each with the nearest right one") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText());
  CheckRefusal(Tiny(data, folder / "a", {"--tokenizer", "chars"}), 2,
               {"chars", "did you mean \"char\"?"});
  CheckRefusal(Tiny(data, folder / "a", {"--model", "slotrnn"}), 2,
               {"slotrnn", "did you mean \"slot_rnn\"?"});
  CheckRefusal(Tiny(data, folder / "a", {"--model", "llama", "--preset", "15m"}), 2,
               {"15m", "15M"});
  CheckRefusal(Tiny(data, folder / "a", {"--recompute", "layers"}), 2,
               {"layers", "did you mean \"layer\"?"});
  CheckRefusal(Tiny(data, folder / "a", {"--heads", "3"}), 2, {"--heads 3", "16"});
  CHECK_FALSE(std::filesystem::exists(folder / "a"));
}

TEST_CASE("models of the other kind, and files that are no models") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText());
  const std::vector<std::string> from = {"train",      "--data", data, "--out",
                                         folder / "a", "--from", kRnn};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = from;
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  CheckRefusal(with({"--model", "llama"}), 2, {"--model", "--from"});
  CheckRefusal(with({"--kv-heads", "2"}), 2, {"--kv-heads"});
  CheckRefusal({"train", "--data", data, "--out", folder / "a", "--from", kLlama}, 3,
               {kLlama, "tokenizer"});
  CheckRefusal({"train", "--data", data, "--out", folder / "a", "--from", data}, 3,
               {data, "no model file"});
  CheckRefusal({"plan", "--data", data, "--from", kLlama}, 3, {kLlama, "tokenizer"});
  CHECK(RunLanewise({"plan", "--from", kLlama}).code == 0);  // of random tokens
  CHECK(RunLanewise({"plan", "--from", kRnn}).code == 0);
  CheckRefusal({"convert", kRnn, folder / "x.gguf"}, 2, {"slot_rnn", "GGUF"});
  CHECK(Contains(RunLanewise({"convert", kLlama, folder / "x.gguf", "--dtype", "bf16"}).messages,
                 "no tokenizer"));
  CheckRefusal({"convert", kLlama, folder / "x.gguf"}, 2, {"--force"});
  CheckRefusal({"convert", kRnn, folder / "x.bin", "--version", "0"}, 2, {"llama"});
  // A state of another model.
  const std::string state = folder / "state";
  REQUIRE(RunLanewise({"generate", kRnn, "--prompt", "x", "--tokens", "4", "--save-state", state})
              .code == 0);
  CheckRefusal({"generate", kGolden + "slot_rnn/word.bin", "--prompt", "x", "--load-state", state},
               3, {state, "another model"});
  CheckRefusal({"generate", kRnn, "--prompt", "x", "--load-state", data}, 3, {data});
}

TEST_CASE(
    "a training that diverges: each step is skipped and said, then code 5 and nothing in the way") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText());
  // Weights that are finite and whose products are not.
  std::string bytes = ReadWhole(kRnn);
  const float huge = std::numeric_limits<float>::max() / 4;
  for (size_t i = 0; i < 1856; ++i)
    std::memcpy(bytes.data() + bytes.size() - 4 * (i + 1), &huge, 4);
  const std::string model = folder.Write("huge.bin", bytes);
  const std::vector<std::string> words = {"train", "--from",       model,     "--data", data,
                                          "--out", folder / "run", "--steps", "30",     "--batch",
                                          "2",     "--threads",    "1"};
  const RunResult result = RunLanewise(words);
  CAPTURE(result.messages);
  CHECK(result.code == 5);
  for (const char* part :
       {"step 1: the loss or its gradient is not finite; the step is skipped", "step 9: the loss",
        "error: ", "10 steps in a row", "no checkpoint", "--lr", "--warmup"}) {
    CHECK(Contains(result.messages, part));
  }
  // An evaluation that is not finite is none to be the best.
  CHECK_FALSE(Contains(result.messages, "best"));
  CHECK(RunLanewise(words).code == 5);
}

TEST_CASE("two signals end a training at once, and what was saved stays") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText());
  const std::string run = folder / "run";
  REQUIRE(RunLanewise(Tiny(data, run)).code == 0);
  for (const int signal : {2, 15}) {
    const RunResult twice =
        RunLanewise({"train", "--resume", run, "--steps", "100000000"},
                    {.signal = signal, .signal_when = "step ", .signal_twice = true});
    CHECK(twice.code == 128 + signal);
    CHECK(RunLanewise({"eval", run, "--data", data}).code == 0);
  }
}
