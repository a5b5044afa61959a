// A tiny training from the command line: start, stop, resume, use; and what it refuses.
#include <doctest/doctest.h>

#include <sys/stat.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/apps/refusal.h"
#include "tests/apps/tiny_train.h"
#include "tests/support/process.h"

namespace {

using Json = nlohmann::json;
using lanewise::testing::CheckRefusal;
using lanewise::testing::Contains;
using lanewise::testing::ReadWhole;
using lanewise::testing::RunLanewise;
using lanewise::testing::RunResult;
using lanewise::testing::SomeText;
using lanewise::testing::Succeed;
using lanewise::testing::TemporaryFolder;
using lanewise::testing::Tiny;

// What the program wrote: a terminal makes "\r\n" of its "\n".
std::string WithoutReturns(std::string text) {
  for (size_t at = 0; (at = text.find("\r\n", at)) != std::string::npos;) text.erase(at, 1);
  return text;
}

std::string Weights(const std::string& run, int step) {
  char name[64];
  std::snprintf(name, sizeof(name), "/checkpoints/step-%06d/model.safetensors", step);
  return ReadWhole(run + name);
}

}  // namespace

TEST_CASE("train says where bf16 would be faster, unless that was decided") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(20));
  const std::string machine = Succeed({"info", "--machine"}).output;
  const bool faster = Contains(machine, "bf16 (dot products)") || Contains(machine, "AMX tiles");
  const auto noted = [&](const std::vector<std::string>& words) {
    return Contains(Succeed(words).messages, "--dtype bf16 trains faster");
  };
  CHECK(noted(Tiny(data, folder / "open", {"--steps", "1"})) == faster);
  CHECK_FALSE(noted(Tiny(data, folder / "given", {"--steps", "1", "--dtype", "float32"})));
  CHECK_FALSE(noted({"train", "--resume", folder / "open", "--steps", "2"}));
}

TEST_CASE("train, stop, resume, generate, eval") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(200));
  const std::string whole = folder / "whole", parts = folder / "parts";
  const RunResult first = Succeed(Tiny(data, whole, {"--steps", "20", "--json"}));
  const Json record = Json::parse(first.output);
  CHECK(record["step"] == 20);
  CHECK(record["finished"] == true);
  CHECK(record["val_loss"].get<double>() > 0);
  for (const char* part : {"parameters", "Text", "Model", "Machine", "validation", "Done",
                           "lanewise generate", "lanewise eval", "--resume", "loss.svg"}) {
    CAPTURE(part);
    CHECK(Contains(first.messages, part));
  }
  CHECK(std::filesystem::exists(whole + "/loss.svg"));
  CHECK(std::filesystem::exists(whole + "/log.jsonl"));

  // Stopped and resumed twice, the second time without saying where the text is.
  const RunResult stopped = Succeed(Tiny(data, parts, {"--steps", "20", "--stop-after", "7"}));
  CHECK(Contains(stopped.messages, "lanewise train --resume " + parts));
  Succeed(Tiny(data, parts, {"--resume", "--stop-after", "6", "--threads", "1"}));
  const RunResult last = Succeed({"train", "--resume", parts, "--quiet"});
  CHECK(last.messages.empty());
  CHECK(last.output.empty());
  CHECK_FALSE(Weights(whole, 20).empty());
  CHECK(Weights(whole, 20) == Weights(parts, 20));

  // Once more when nothing is left, then longer.
  CHECK(Contains(Succeed({"train", "--resume", parts}).messages, "finished"));
  CheckRefusal({"train", "--resume", parts, "--steps", "10"}, 2, {"step 20"});
  const RunResult longer =
      Succeed({"train", "--resume", "--out", parts, "--steps", "24", "--json"});
  CHECK(Json::parse(longer.output)["step"] == 24);
  const RunResult minutes =
      Succeed({"train", "--resume", "--out", parts, "--minutes", "0.002", "--json"});
  CHECK(Json::parse(minutes.output)["step"].get<int>() > 24);

  const Json info = Json::parse(Succeed({"info", parts, "--json"}).output);
  CHECK(info["config"]["layers"] == 1);
  CHECK(info["checkpoints"].size() >= 2);
  CHECK(Contains(Succeed({"info", parts}).output, "Checkpoints"));
  const RunResult text = Succeed({"generate", parts, "--prompt", "the ", "--tokens", "30"});
  CHECK(text.output.size() >= 30);
  const Json eval = Json::parse(Succeed({"eval", parts, "--data", data, "--json"}).output);
  CHECK(eval["bits_per_byte"].get<double>() > 0);

  // The run's own config starts another like it.
  const RunResult again = Succeed({"train", "--config", whole + "/config.json", "--data", data,
                                   "--out", folder / "again", "--tokenizer", "char", "--json"});
  CHECK(Json::parse(again.output)["step"] == 20);
  CHECK(Weights(folder / "again", 20) == Weights(whole, 20));
  // And another model its weights.
  const RunResult from = Succeed({"train", "--from", whole, "--data", data, "--out",
                                  folder / "from", "--steps", "2", "--json"});
  CHECK(Json::parse(from.output)["train_loss"].get<double>() <
        record["train_loss"].get<double>() + 0.5);
}

TEST_CASE("a run's config.json trains the same model again; editing it harms nothing") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(400));
  const std::string first = folder / "first", second = folder / "second";
  std::vector<std::string> words =
      Tiny(data, first, {"--steps", "3", "--lr", "0.01", "--vocab", "300"});
  *std::ranges::find(words, "char") = "byte";  // which this text would not get by itself
  Succeed(words);
  Succeed({"train", "--config", first + "/config.json", "--out", second, "--threads", "1"});
  CHECK(Weights(first, 3) == Weights(second, 3));
  Succeed({"train", "--out", folder / "third"},
          {.environment = {{"LANEWISE_CONFIG", first + "/config.json"}}});
  CHECK(Weights(first, 3) == Weights(folder / "third", 3));
  // A tokenizer that no text gives is not asked for.
  Succeed({"train", "--from", LANEWISE_SOURCE_DIR "/tests/golden/slot_rnn/char.bin", "--data", data,
           "--out", folder / "from", "--steps", "1"});
  Succeed({"train", "--config", folder / "from/config.json", "--out", folder / "fourth"});
  // The copy beside the checkpoints is nobody's but the person's.
  for (const char* name : {"/config.json", "/tokenizer.json"}) {
    std::ofstream(first + name, std::ios::app) << " ";
  }
  Succeed({"info", first});
  Succeed({"train", "--resume", first, "--steps", "4"});
}

TEST_CASE("a folder named like an option: the command to go on can be typed as it stands") {
  const TemporaryFolder folder;
  folder.Write("text.txt", SomeText(40));
  const std::string in_folder = "cd '" + folder.path() + "' && exec \"$0\" \"$@\"";
  std::vector<std::string> words = Tiny("text.txt", "-odd", {"--stop-after", "1"});
  const auto name = std::ranges::find(words, "-odd");
  *std::prev(name) += "=-odd";
  words.erase(name);
  words.insert(words.begin(), {"/bin/sh", "-c", in_folder, LANEWISE_BINARY_DIR "/lanewise"});
  const RunResult stopped = lanewise::testing::RunProcess(words);
  CAPTURE(stopped.messages);
  CHECK(stopped.code == 0);
  CHECK(Contains(stopped.output + stopped.messages, "1 step,"));
  CHECK(Contains(stopped.output + stopped.messages, "--resume ./-odd"));
}

TEST_CASE("a text whose name is no UTF-8 trains; --resume asks for it") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("b\xff.txt", SomeText(40)), run = folder / "run";
  Succeed(Tiny(data, run, {"--steps", "3"}));
  const RunResult lost = RunLanewise({"train", "--resume", run, "--steps", "4"});
  CHECK(lost.code == 3);
  CHECK(Contains(lost.messages, "--data FILE"));
  Succeed({"train", "--resume", run, "--steps", "4", "--data", data});
}

TEST_CASE("--from takes a llama with its context, its optimizer's defaults and no state") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(200));
  const std::string first = folder / "first", second = folder / "second";
  Succeed({"train", "--data", data, "--out", first, "--model", "llama", "--layers", "1", "--dim",
           "32", "--heads", "2", "--ctx", "24", "--steps", "5"});
  const RunResult from =
      Succeed({"train", "--from", first, "--data", data, "--out", second, "--steps", "5"});
  CHECK(Contains(from.messages, "× 24 tokens"));
  CHECK(Contains(from.messages, "Rate      0.001, cosine to 0.0001"));
  Succeed({"plan", "--from", first, "--data", data, "--steps", "5"});
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"train", "--from", first, "--data", data, "--out", folder / "x"});
    return more;
  };
  CheckRefusal(with({"--ctx", "25"}), 2, {"--ctx 25", "24"});
  CheckRefusal(with({"--kv-heads", "1"}), 2, {"--kv-heads", "--from"});
  CheckRefusal(with({"--carry-state"}), 2, {"--carry-state", "llama"});
}

TEST_CASE("the end says what the losses mean, and --resume what is missing or damaged") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(200));
  const std::string run = folder / "run";
  const RunResult wild = Succeed(Tiny(
      data, folder / "wild",
      {"--steps", "60", "--lr", "10", "--clip", "0", "--schedule", "constant", "--warmup", "0"}));
  CHECK(Contains(wild.messages, "Rate      10, constant;"));
  CHECK(Contains(wild.messages, "above that of guessing"));
  const RunResult tame = Succeed(Tiny(data, run, {"--steps", "20", "--save-every", "10"}));
  CHECK_FALSE(Contains(tame.messages, "guessing"));
  Succeed({"train", "--resume", run, "--steps", "30"});
  CHECK(Json::parse(Succeed({"info", run, "--json"}).output)["training"]["steps"] == 30);
  CHECK(Contains(Succeed({"info", run}).output, data));
  std::filesystem::rename(data, folder / "moved.txt");
  CheckRefusal({"train", "--resume", run, "--steps", "40"}, 3, {data, "--data FILE"});
  std::filesystem::resize_file(run + "/checkpoints/step-000030/model.safetensors", 1000);
  CheckRefusal({"train", "--resume", run, "--steps", "40", "--data", folder / "moved.txt"}, 3,
               {"truncated", "delete ", "step-000030"});
}

TEST_CASE("a split whose rest is harder than what evaluations read is not learned by heart") {
  const TemporaryFolder folder;
  const std::string text = SomeText(100);
  // As much again: 2,000 bytes of the same kind, then its letters in another order.
  const std::string rest(text.rbegin(), text.rend() - 2000);
  const std::string data = folder.Write("text.txt", text + text.substr(0, 2000) + rest);
  const RunResult result = Succeed(
      Tiny(data, folder / "run", {"--steps", "40", "--val-fraction", "0.5", "--eval-tokens", "1"}));
  CAPTURE(result.messages);
  CHECK(Contains(result.messages, "(whole split)"));
  CHECK_FALSE(Contains(result.messages, "by heart"));
  CHECK(Contains(result.messages, "# train it further"));
}

TEST_CASE("epochs are those of the text, however it is cut into windows") {
  const TemporaryFolder folder;
  const std::string text = SomeText(100), data = folder.Write("text.txt", text.substr(0, 5000));
  const auto with = [&](const char* command, const std::vector<std::string>& more) {
    std::vector<std::string> words = {command,  "--data",   data,        "--out", folder / "run",
                                      "--json", "--layers", "1",         "--dim", "16",
                                      "--ctx",  "128",      "--threads", "2"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  // 4,499 targets in 32 rows: a window of 128 and one of 13.
  const RunResult train = Succeed(with("train", {"--batch", "32", "--epochs", "10"}));
  CHECK(Contains(train.messages, "(10 epochs)"));
  CHECK(Json::parse(train.output)["tokens"] == 44990);
  CHECK(Json::parse(train.output)["steps"] == 20);
  const RunResult longer =
      Succeed({"train", "--resume", folder / "run", "--epochs", "12", "--json"});
  CHECK(Json::parse(longer.output)["tokens"] == 53988);
  const Json plan =
      Json::parse(Succeed(with("plan", {"--batch", "1", "--epochs", "3", "--ctx", "9000"})).output);
  CHECK(plan["steps"] == 3);
  CHECK(plan["tokens"] == 3 * 4499);
  std::vector<std::string> one = with("plan", {"--batch", "1", "--steps", "1", "--ctx", "4"});
  std::erase(one, "--json");
  CHECK(Contains(Succeed(one).output, "(less than 0.01 epochs)"));
}

TEST_CASE("without standard streams nothing is written into the run's files") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(40)), run = folder / "run";
  const auto without = [](const std::string& closed, std::vector<std::string> words) {
    words.insert(words.begin(), {"/bin/sh", "-c", "exec \"$0\" \"$@\" " + closed,
                                 LANEWISE_BINARY_DIR "/lanewise"});
    return lanewise::testing::RunProcess(words);
  };
  CHECK(without("2>&-", Tiny(data, run, {"--steps", "2"})).code == 0);
  CHECK(without("0<&- >&- 2>&-", {"train", "--resume", run, "--steps", "4"}).code == 0);
  CHECK(ReadWhole(run + "/.lock").size() == 21);
  std::istringstream log(ReadWhole(run + "/log.jsonl"));
  for (std::string line; std::getline(log, line);) CHECK(Json::accept(line));
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"train", "--resume", run, "--steps", "5", "--json"},
        std::vector<std::string>{"generate", run, "--prompt", "the", "--tokens", "2"},
        std::vector<std::string>{"--help"}}) {
    const RunResult result = without(">&-", words);
    CHECK(result.code == 4);
    CHECK(Contains(result.messages, "write standard output"));
  }
}

TEST_CASE("bf16: trains, says what computes it, resumes to the same bits, generates, evaluates") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(200));
  const std::string whole = folder / "whole", parts = folder / "parts";
  const RunResult first = Succeed(Tiny(data, whole, {"--steps", "20", "--dtype", "bf16"}));
  CHECK(Contains(first.messages, "bf16 ("));
  Succeed(Tiny(data, parts, {"--steps", "20", "--dtype", "bf16", "--stop-after", "7"}));
  Succeed({"train", "--resume", parts, "--quiet"});
  CHECK_FALSE(Weights(whole, 20).empty());
  CHECK(Weights(whole, 20) == Weights(parts, 20));
  CheckRefusal({"train", "--resume", parts, "--steps", "30", "--dtype", "float32"}, 2,
               {"--dtype", "bf16", "float32"});
  CheckRefusal(Tiny(data, folder / "other", {"--dtype", "fp16"}), 2, {"--dtype", "float32, bf16"});
  const auto loss = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"eval", whole, "--data", data, "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return Json::parse(Succeed(words).output)["cross_entropy"].get<double>();
  };
  for (const char* unit : {"auto", "float32", "dot", "amx"}) {
    CAPTURE(unit);
    const double half = loss({"--dtype", "bf16", "--bf16-unit", unit});
    CHECK(half == doctest::Approx(loss({})).epsilon(0.01));
    CHECK(half != loss({}));
  }
  const RunResult text =
      Succeed({"generate", whole, "--prompt", "the ", "--dtype", "bf16", "--bf16-unit", "amx"});
  CHECK(Contains(text.messages, "Arithmetic: bf16 (AMX tiles"));
  const Json machine = Json::parse(Succeed({"info", "--machine", "--json"}).output);
  CHECK(Contains(text.messages, "in software") == (machine["bf16_unit"] != "amx"));
}

TEST_CASE("llama: a saved state goes on as if nothing had been between, in float32 and bf16") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(200));
  const std::string run = folder / "run", state = folder / "state";
  Succeed(Tiny(data, run, {"--model", "llama", "--steps", "20"}));
  for (const char* dtype : {"float32", "bf16"}) {
    CAPTURE(dtype);
    const auto text = [&](const std::vector<std::string>& more) {
      std::vector<std::string> words = {"generate", run, "--dtype", dtype, "--seed", "3", "--json"};
      words.insert(words.end(), more.begin(), more.end());
      return Json::parse(Succeed(words).output)["text"].get<std::string>();
    };
    const std::string whole = text({"--prompt", "the ", "--tokens", "9"});
    text({"--prompt", "the ", "--tokens", "0", "--save-state", state});
    CHECK(text({"--load-state", state, "--tokens", "9"}) == whole);
  }
}

TEST_CASE("data and folders that cannot be trained on") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(50));
  CheckRefusal(Tiny(folder / "none.txt", folder / "a"), 3, {"none.txt"});
  CheckRefusal(Tiny(folder.Write("empty.txt", ""), folder / "a"), 3, {"empty.txt"});
  CheckRefusal(Tiny(folder.Write("one.txt", "x"), folder / "a"), 3, {"one.txt"});
  std::filesystem::create_directory(folder / "bare");
  CheckRefusal(Tiny(folder / "bare", folder / "a"), 3, {"bare"});
  const std::string pipe = folder / "pipe";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  for (const std::string& once : {std::string("-"), std::string("/dev/stdin"), pipe}) {
    CheckRefusal(Tiny(once, folder / "a"), 2, {"--data " + once, "could not read again"});
  }
  CheckRefusal(Tiny(data, folder / "a", {"--tokenizer", "chars"}), 2, {"char"});
  CheckRefusal(Tiny(data, folder / "a", {"--heads", "3"}), 2, {"--heads 3"});
  CheckRefusal(Tiny(data, data), 2, {"not a folder"});
  CHECK_FALSE(std::filesystem::exists(folder / "a"));
  folder.Write("foreign/config.json", "{}");
  CheckRefusal(Tiny(data, folder / "foreign"), 2, {"config.json"});
  CheckRefusal(Tiny(data, "/proc/lanewise-run"), 4, {"/proc/lanewise-run"});
  CheckRefusal(Tiny(data, folder / "a", {"--dim", "65536", "--layers", "50"}), 6, {"GiB"});
}

TEST_CASE("short and strange texts train") {
  const TemporaryFolder folder;
  const std::string bytes("\xff\xfe\0ab\0\x80 c\n\xc3", 11);
  std::string strange;
  for (int i = 0; i < 30; ++i) strange += bytes;
  const std::vector<std::pair<std::string, std::string>> texts = {
      {"short", "just a few words"}, {"strange", strange}, {"single", std::string(500, 'a')}};
  for (const auto& [name, text] : texts) {
    CAPTURE(name);
    const RunResult result = Succeed(
        Tiny(folder.Write(name + ".txt", text), folder / name, {"--steps", "3", "--ctx", "64"}));
    CHECK(Contains(result.messages, "Done"));
  }
}

TEST_CASE("a signal saves and says how to go on; the folder then goes on") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(200));
  const std::string run = folder / "run";
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    std::vector<std::string> words =
        signal == SIGINT ? Tiny(data, run, {"--steps", "100000000", "--eval-every", "0"})
                         : std::vector<std::string>{"train", "--resume", run};
    // A closed terminal may be told twice.
    const RunResult result = RunLanewise(
        words, {.signal = signal, .signal_when = "step ", .signal_twice = signal == SIGHUP});
    CHECK(Contains(result.messages, "\nStopping after this step; once more: at once"));
    CAPTURE(result.messages);
    CHECK(result.code == 128 + signal);
    CHECK(Contains(result.messages, "lanewise train --resume " + run));
    CHECK(Contains(result.messages, "Stopped by"));
  }
  // As nohup starts it.
  const RunResult ignored = lanewise::testing::RunProcess(
      {"/bin/sh", "-c", "trap '' HUP; exec \"$0\" \"$@\"", LANEWISE_BINARY_DIR "/lanewise", "train",
       "--resume", run, "--stop-after", "5000"},
      {.signal = SIGHUP, .signal_when = "step "});
  CHECK(ignored.code == 0);
  const RunResult twice = RunLanewise({"train", "--resume", run},
                                      {.signal = 2, .signal_when = "step ", .signal_twice = true});
  CHECK(twice.code == 130);
  const RunResult after = RunLanewise({"train", "--resume", run, "--stop-after", "1"});
  CAPTURE(after.messages);
  CHECK(after.code == 0);
}

TEST_CASE("progress: one line as wide as the terminal, none without") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(100));
  const std::vector<std::string> more = {"--steps", "30"};
  for (const int columns : {20, 80}) {
    const RunResult result =
        Succeed(Tiny(data, folder / ("terminal" + std::to_string(columns)), more),
                {.environment = {{"TERM", "xterm"}}, .terminal_columns = columns});
    const std::string screen = WithoutReturns(result.messages);
    CHECK(Contains(screen, "\rstep "));
    // Between two returns of the carriage no progress is wider than the terminal.
    size_t widest = 0;
    for (size_t at = screen.find('\r'); at != std::string::npos;) {
      const size_t end = screen.find_first_of("\r\n\b", at + 1);
      if (end == std::string::npos) break;
      if (screen[end] != '\n') widest = std::max(widest, end - at - 1);
      at = screen.find('\r', end);
    }
    CAPTURE(columns);
    CHECK(widest > 0);
    CHECK(widest < static_cast<size_t>(columns));
  }
  const RunResult plain = Succeed(Tiny(data, folder / "plain", more));
  CHECK_FALSE(Contains(plain.messages, "\r"));
  CHECK_FALSE(Contains(plain.messages, "\033"));
  CHECK(Contains(plain.messages, "step 1/30"));
  // Nobody reads the messages: the training goes on.
  CHECK(RunLanewise(Tiny(data, folder / "unread", more), {.close_messages = true}).code == 0);
}

TEST_CASE("profile and plan") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(100));
  const std::string trace = folder / "trace.json";
  Succeed(Tiny(data, folder / "a", {"--steps", "3", "--profile", trace}));
  CHECK(Json::parse(ReadWhole(trace)).is_object());
  CHECK(
      Contains(Succeed(Tiny(data, folder / "b", {"--steps", "3", "--profile", "summary"})).messages,
               "GFLOP/s"));

  std::vector<std::string> words = Tiny(data, folder / "c", {"--steps", "50", "--json"});
  words[0] = "plan";
  const Json plan = Json::parse(Succeed(words).output);
  for (const char* field : {"parameters", "flops_per_token", "peak_memory_bytes", "machine_gflops",
                            "tokens_per_second", "seconds"}) {
    CAPTURE(field);
    CHECK(plan[field].get<double>() > 0);
  }
  CHECK(plan["steps"] == 50);
  CHECK_FALSE(std::filesystem::exists(folder / "c"));
  const auto plan_of = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = {"plan", "--data", data, "--epochs", "1000000"};
    all.insert(all.end(), more.begin(), more.end());
    return Succeed(all);
  };
  const RunResult model = plan_of({"--dim", "65536", "--layers", "300"});
  CHECK(Contains(model.messages, "only a smaller model fits"));
  CHECK_FALSE(Contains(model.output, " 0 tokens/s"));
  CHECK_FALSE(Contains(model.output, "?"));
  CHECK(Contains(model.output, " years"));
  const RunResult batch = plan_of(
      {"--batch", "65536", "--ctx", "4096", "--grad-accum", "1000", "--recompute", "layer"});
  CHECK(Contains(batch.messages, "a smaller --batch or --ctx, or a smaller model"));
}

TEST_CASE("two processes on one folder: the second is refused") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(100));
  const std::string run = folder / "run";
  // The first one's shell runs the second while the first trains.
  const std::string program = std::string(LANEWISE_BINARY_DIR) + "/lanewise";
  const std::string script = program + " train --data " + data + " --out " + run +
                             " --layers 1 --dim 16 --heads 2 --steps 100000000 --quiet & first=$!; "
                             "while [ ! -e " +
                             run + "/.lock ]; do sleep 0.05; done; sleep 0.3; " + program +
                             " train --data " + data + " --out " + run +
                             "; code=$?; kill -9 $first; echo $code $first";
  const RunResult result =
      lanewise::testing::RunProcess({"/bin/sh", "-c", script}, {.limit_seconds = 60});
  CAPTURE(result.messages);
  REQUIRE(result.output.size() > 2);
  CHECK(result.output.substr(0, 2) == "7 ");
  const std::string pid = result.output.substr(2, result.output.find('\n') - 2);
  CHECK(Contains(result.messages, pid));
}
