// Options, messages and exit codes that need no model.
#include <doctest/doctest.h>

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/apps/refusal.h"
#include "tests/support/process.h"

namespace {

using lanewise::testing::CheckRefusal;
using lanewise::testing::Contains;
using lanewise::testing::ReadWhole;
using lanewise::testing::RunLanewise;
using lanewise::testing::RunOptions;
using lanewise::testing::RunProcess;
using lanewise::testing::RunResult;
using lanewise::testing::TemporaryFolder;

const std::string kBench = LANEWISE_SOURCE_DIR "/bench/";

}  // namespace

TEST_CASE("overview, version and help of every command") {
  const RunResult overview = RunLanewise({});
  CHECK(overview.code == 0);
  CHECK(RunLanewise({"--help"}).output == overview.output);
  CHECK(Contains(RunLanewise({"--version"}).output, "lanewise 0."));
  for (const char* command :
       {"train", "generate", "eval", "plan", "info", "convert", "gradients"}) {
    CAPTURE(command);
    CHECK(Contains(overview.output, std::string("\n  ") + command + " "));
    const RunResult help = RunLanewise({command, "--help"});
    CHECK(help.code == 0);
    CHECK(help.messages.empty());
    CHECK(Contains(help.output, std::string("Usage: lanewise ") + command));
    CHECK(Contains(help.output, std::string("  lanewise ") + command + " "));  // an example
    CHECK(RunLanewise({"help", command}).output == help.output);
  }
  const RunResult bench = RunLanewise({"bench", "kernels", "--help"});
  if (Contains(overview.output, "bench kernels")) CHECK(Contains(bench.output, "[FILTER]"));
}

TEST_CASE("the benchmarks' filter is a regular expression for any case") {
  if (!Contains(RunLanewise({}).output, "bench kernels")) return;
  for (const std::string filter :
       {"softmax", "bm_SOFT(max)+", "[s]oftm[A]x.*", "_s\\w+max.*:\\d+"}) {
    CAPTURE(filter);
    const RunResult list = RunLanewise({"bench", "kernels", filter, "--list"});
    CHECK(list.code == 0);
    CHECK(Contains(list.output, "BM_Softmax"));
    CHECK_FALSE(Contains(list.output, "BM_Dropout"));
  }
  const RunResult none = RunLanewise({"bench", "kernels", "softmin", "--list"});
  CHECK(none.code == 2);
  CHECK(Contains(none.messages, "'softmin'"));
  CheckRefusal({"bench", "kernels", "softmax("}, 2, {"'softmax('", "regular expression"});

  const RunResult list = RunLanewise({"bench", "kernels", "--list", "matmul/small"});
  std::string lines;
  for (const std::string name : nlohmann::json::parse(
           RunLanewise({"bench", "kernels", "--list", "matmul/small", "--json"}).output)) {
    lines += name + "\n";
  }
  CHECK(lines == list.output);
  CHECK(Contains(lines, "matmul/small/NN/16x16x16/"));
  // An installed program has no source to read them from.
  CHECK_FALSE(Contains(ReadWhole(LANEWISE_BINARY_DIR "/lanewise"), kBench + "shapes"));
}

TEST_CASE("benchmarks are silent with --quiet, and end with the first signal") {
  if (!Contains(RunLanewise({}).output, "bench kernels")) return;
  const RunResult quiet =
      RunLanewise({"bench", "kernels", "rope.*hd:48", "--quiet", "--min-time", "0.001"});
  CHECK(quiet.code == 0);
  CHECK(quiet.messages.empty());
  CHECK(Contains(quiet.output, "BM_RopeForward"));
  for (const int signal : {2, 15}) {
    const RunResult stopped =
        RunLanewise({"bench", "kernels", "rope.*hd:48", "--min-time", "600"},
                    {.signal = signal, .signal_when = "simd_target", .limit_seconds = 60});
    CHECK(stopped.code == 128 + signal);
    CHECK(Contains(stopped.messages, "Stopped by"));
  }
}

TEST_CASE("each repetition of a benchmark has a result") {
  if (!Contains(RunLanewise({}).output, "bench kernels")) return;
  const RunResult run =
      RunLanewise({"bench", "kernels", "softmax.*/s:[248]/|adamw/49152|embedding.*rows:1536|rope",
                   "--repetitions", "3", "--min-time", "0.003", "--json"});
  REQUIRE(run.code == 0);
  std::map<std::string, std::set<int64_t>> iterations;
  size_t results = 0;
  const nlohmann::json report = nlohmann::json::parse(run.output);
  for (const auto& benchmark : report["benchmarks"]) {
    if (benchmark["run_type"] != "iteration") continue;
    ++results;
    iterations[benchmark["run_name"]].insert(benchmark["iterations"].get<int64_t>());
  }
  CHECK(results == 3 * iterations.size());
  CHECK(iterations.size() == 12);
  for (const auto& [name, counts] : iterations) {
    CAPTURE(name);
    CHECK(counts.size() == 1);
  }
}

TEST_CASE("the scripts of bench/ refuse what cannot be compared and what does not exist") {
  const auto python = [](const std::string& script, std::vector<std::string> words) {
    words.insert(words.begin(), {"/usr/bin/env", "python3", "-B", kBench + script});
    return RunProcess(words);
  };
  if (python("compare.py", {"--help"}).code == 127) {
    MESSAGE("no python3: skipped");
    return;
  }
  CHECK(python("compare.py", {"--help"}).code == 0);
  const TemporaryFolder folder;
  nlohmann::json old = {{"tokens_per_second", 100.0},
                        {"path", "train"},
                        {"dtype", "float32"},
                        {"model", {{"dim", 16}}},
                        {"threads", 1},
                        {"cpu", "slow"},
                        {"isa", "AVX2"},
                        {"peak_gflops", 1.0}};
  const auto compare = [&](const nlohmann::json& result) {
    return python("compare.py",
                  {folder.Write("old.json", old.dump()), folder.Write("new.json", result.dump())});
  };
  CHECK(compare(old).code == 0);
  CHECK(compare(old).messages.empty());
  const std::vector<std::pair<nlohmann::json, std::string>> unlike = {
      {{{"path", "decode"}}, "path train, decode"},
      {{{"dtype", "bf16"}}, "dtype float32, bf16"},
      {{{"model", {{"dim", 32}}}}, "model dim 16, 32"},
      {{{"threads", 2}}, "threads 1, 2"}};
  for (const auto& [change, text] : unlike) {
    CAPTURE(text);
    nlohmann::json result = old;
    result.update(change);
    const RunResult run = compare(result);
    CHECK(run.code == 2);
    CHECK(Contains(run.messages, text));
    CHECK(run.output.empty());
  }
  nlohmann::json elsewhere = old;
  elsewhere.update({{"cpu", "fast"}, {"isa", "AVX3"}, {"tokens_per_second", 200.0}});
  const RunResult faster = compare(elsewhere);
  CHECK(faster.code == 0);
  CHECK(Contains(faster.output, "faster"));
  CHECK(Contains(faster.messages, "cpu slow, fast"));
  CHECK(Contains(faster.messages, "isa AVX2, AVX3"));

  const std::string out = folder / "report";
  const RunResult only = python("report.py", {"--only", "training,foo", "--out", out});
  CHECK(only.code == 2);
  CHECK(Contains(only.messages, "'foo'"));
  CHECK(Contains(only.messages, "training, decoding, prefill, kernels"));
  const RunResult cases =
      python("report.py", {"--only", "decoding", "--cases", "llama", "--out", out});
  CHECK(cases.code == 2);
  CHECK(Contains(cases.messages, "'llama'"));
  CHECK(Contains(cases.messages, "110M"));
  CHECK(python("report.py", {"--only", "none", "--out", out}).code == 0);
}

TEST_CASE("misspelt commands and options name the nearest right one") {
  CheckRefusal({"trian"}, 2, {"'trian'", "train", "lanewise --help"});
  CheckRefusal({"help", "trian"}, 2, {"'trian'", "train"});
  CheckRefusal({"train", "--laers", "4"}, 2, {"--laers", "--layers", "lanewise train --help"});
  CheckRefusal({"train", "--eval_every", "4"}, 2, {"--eval-every"});
  CheckRefusal({"generate", "m", "--temperature", "1"}, 2, {"--temp?"});
  CheckRefusal({"train", "--data", "x", "--out", "y", "--schedule", "cosin"}, 2, {"cosine"});
  CheckRefusal({"train", "--data", "x", "--out", "y", "--model", "lama"}, 2, {"llama"});
  CheckRefusal({"info", "--machine", "--isa", "AVX9"}, 2, {"AVX9", "auto"});
  CheckRefusal({"eval", "m", "extra", "--data", "x"}, 2, {"'extra'"});
  CheckRefusal({"generate", "m", "Once upon"}, 2, {"'Once upon'", "with --prompt"});
  CheckRefusal({"generate", "--", "m", "--temp"}, 2, {"'--temp' is one argument too many"});
  CheckRefusal({"info", "--", "-x"}, 3, {"-x: no such file"});
}

TEST_CASE("other programs' names of options lead to ours") {
  CheckRefusal({"train", "--learning-rate", "0.1"}, 2, {"--learning-rate", "--lr?"});
  CheckRefusal({"train", "--block_size", "64"}, 2, {"--block_size", "--ctx?"});
  CheckRefusal({"generate", "m", "-n", "4"}, 2, {"-n", "--tokens?"});
  CheckRefusal({"generate", "m", "-p", "x"}, 2, {"-p", "--prompt?"});
  CheckRefusal({"generate", "-m", "x"}, 2, {"lanewise generate MODEL"});
  CheckRefusal({"bench", "train", "llama"}, 2, {"'llama'", "--model"});
  // A name of another program that means nothing here leads nowhere.
  CHECK_FALSE(Contains(RunLanewise({"info", "--learning-rate", "1"}).messages, "--lr"));
}

TEST_CASE("missing and contradicting options") {
  CheckRefusal({"train"}, 2, {"--out"});
  CheckRefusal({"train", "--out", "x"}, 2, {"--data"});
  CheckRefusal({"train", "--data"}, 2, {"--data needs a value"});
  CheckRefusal({"eval"}, 2, {"MODEL"});
  CheckRefusal({"eval", "m"}, 2, {"--data"});
  CheckRefusal({"eval", "m", "--data", "a", "--token-ids", "b"}, 2, {"--data", "--token-ids"});
  CheckRefusal({"info"}, 2, {"--machine"});
  CheckRefusal({"train", "--data", "x", "--out", "y", "--steps", "5", "--minutes", "1"}, 2,
               {"--steps", "--minutes"});
}

TEST_CASE("numbers out of range and no numbers, each with the option's name") {
  const std::vector<std::string> train = {"train", "--data", "x", "--out", "y"};
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"--lr", "nan"},
      {"--lr", "-1"},
      {"--lr", "0"},
      {"--lr", "1e9"},
      {"--lr", "fast"},
      {"--steps", "0"},
      {"--steps", "-3"},
      {"--steps", "1.5"},
      {"--steps", "99999999999999999999"},
      {"--batch", "0"},
      {"--minutes", "inf"},
      {"--epochs", "nan"},
      {"--layers", "0"},
      {"--dim", "-8"},
      {"--dropout", "1"},
      {"--val-fraction", "2"},
      {"--label-smoothing", "nan"},
      {"--keep", "0"},
      {"--ctx", ""},
      {"--threads", "-1"},
      {"--threads", "nan"},
      {"--seed", "-1"},
      {"--beta2", "1"},
      {"--ffn-mult", "nan"},
      {"--clip", "-1"},
      {"--grad-accum", "0"}};
  for (const auto& [option, value] : wrong) {
    std::vector<std::string> arguments = train;
    arguments.insert(arguments.end(), {option, value});
    CheckRefusal(arguments, 2, {option});
  }
  // Integers, though no program could hold them: what is wrong is the range.
  const std::vector<std::vector<std::string>> large = {
      {"--steps", "1e18", "1000000000"},
      {"--layers", "99999999999999999999", "from 1 to 1024"},
      {"--dim", "-99999999999999999999", "from 1 to 65536"},
      {"--batch", "1e30", "from 1 to 65536"}};
  for (const auto& words : large) {
    std::vector<std::string> arguments = train;
    arguments.insert(arguments.end(), {words[0], words[1]});
    CheckRefusal(arguments, 2, {words[0], "must be from", words[2]});
    CHECK_FALSE(Contains(RunLanewise(arguments).messages, "9223372036854775"));
  }
  for (const char* option : {"--temp", "--top-p", "--min-p", "--repeat-penalty"}) {
    CheckRefusal({"generate", "m", "--prompt", "x", option, "nan"}, 2, {option, "nan"});
    CheckRefusal({"generate", "m", "--prompt", "x", option, "-2"}, 2, {option, "-2"});
  }
  CheckRefusal({"generate", "m", "--top-k", "-1"}, 2, {"--top-k", "-1"});
  CheckRefusal({"generate", "m", "--tokens", "many"}, 2, {"--tokens", "many"});
}

TEST_CASE("options come from the command line, then the environment, then a config file") {
  const TemporaryFolder folder;
  const std::string config = folder.Write("config.json", R"({"threads": 3})");
  const auto threads = [](const RunResult& result) {
    CAPTURE(result.messages);
    REQUIRE(result.code == 0);
    return nlohmann::json::parse(result.output)["threads"].get<int>();
  };
  const std::vector<std::string> info = {"info", "--machine", "--json"};
  CHECK(threads(RunLanewise(info, {.environment = {{"LANEWISE_THREADS", "5"}}})) == 5);
  CHECK(threads(RunLanewise({"info", "--machine", "--json", "--threads", "2"},
                            {.environment = {{"LANEWISE_THREADS", "5"}}})) == 2);
  CheckRefusal(info, 2, {"LANEWISE_THREADS", "--threads", "'x'"},
               {.environment = {{"LANEWISE_THREADS", "x"}}});

  const std::vector<std::string> plan = {"plan", "--json",   "--config", config,    "--dim",
                                         "32",   "--layers", "1",        "--heads", "2"};
  CHECK(threads(RunLanewise(plan)) == 3);
  CHECK(threads(RunLanewise(plan, {.environment = {{"LANEWISE_THREADS", "1"}}})) == 1);
}

TEST_CASE("a variable that no option reads is said") {
  const RunResult result =
      RunLanewise({"info", "--machine"}, {.environment = {{"LANEWISE_THREDS", "5"}}});
  CHECK(result.code == 0);
  CHECK(Contains(result.messages, "LANEWISE_THREDS is set"));
  CHECK(Contains(result.messages, "LANEWISE_THREADS?"));
}

TEST_CASE("lengths from a more important source replace those from another") {
  const TemporaryFolder folder;
  const std::string config = folder.Write(
      "config.json", R"({"steps": 77, "dim": 32, "layers": 1, "heads": 2, "eval_every": 5})");
  const std::vector<std::string> plan = {"plan", "--json", "--threads", "1", "--config", config};
  const auto steps = [](const RunResult& result) {
    CAPTURE(result.messages);
    REQUIRE(result.code == 0);
    return nlohmann::json::parse(result.output)["steps"].get<int>();
  };
  CHECK(steps(RunLanewise(plan)) == 77);
  std::vector<std::string> with_tokens = plan;
  with_tokens.insert(with_tokens.end(), {"--tokens", "1", "--batch", "1"});
  CHECK(steps(RunLanewise(with_tokens)) == 1);
}

TEST_CASE("wrong config files") {
  const TemporaryFolder folder;
  CheckRefusal({"plan", "--config", folder / "none.json"}, 3, {"none.json"});
  CheckRefusal({"plan", "--config", folder.Write("a.json", "{\"lr\": ")}, 3, {"a.json"});
  CheckRefusal({"plan", "--config", folder.Write("b.json", "[1]")}, 3, {"b.json"});
  CheckRefusal({"plan", "--config", folder.Write("c.json", R"({"laers": 2})")}, 2,
               {"c.json", "laers", "layers"});
  CheckRefusal({"plan", "--config", folder.Write("d.json", R"({"lr": "x"})")}, 2,
               {"d.json", "--lr"});
  CheckRefusal({"plan", "--config", folder.Write("e.json", R"({"lr": {"a": 1}})")}, 2, {"e.json"});
}

TEST_CASE("info --machine says what runs") {
  const RunResult text = RunLanewise({"info", "--machine"});
  CHECK(text.code == 0);
  for (const char* part : {"CPU", "SIMD target", "Threads", "Caches", "Memory", "float32"}) {
    CHECK(Contains(text.output, part));
  }
  const auto json = nlohmann::json::parse(RunLanewise({"info", "--machine", "--json"}).output);
  CHECK(json["simd_targets"].size() >= 1);
  CHECK(json["simd_target"] == json["simd_targets"][0]);
  CHECK(json["threads"].get<int>() >= 1);
  const std::string last = json["simd_targets"].back();
  const auto forced =
      nlohmann::json::parse(RunLanewise({"info", "--machine", "--json", "--isa", last}).output);
  CHECK(forced["simd_target"] == last);
}

TEST_CASE("closed and full outputs") {
  const RunResult closed = RunLanewise({"--help"}, {.close_output = true});
  CHECK(closed.code == 141);
  CHECK(closed.messages.empty());
  const RunResult full = RunLanewise({"--help"}, {.output_path = "/dev/full"});
  CHECK(full.code == 4);
  CHECK(Contains(full.messages, "No space left"));
}

TEST_CASE("color on a terminal only, and not with NO_COLOR or TERM=dumb") {
  const std::vector<std::string> wrong = {"trian"};
  const RunOptions terminal = {.environment = {{"TERM", "xterm"}, {"NO_COLOR", ""}},
                               .terminal_columns = 80};
  CHECK(Contains(RunLanewise(wrong, terminal).messages, "\033["));
  CHECK_FALSE(Contains(RunLanewise(wrong).messages, "\033"));
  RunOptions plain = terminal;
  plain.environment["NO_COLOR"] = "1";
  CHECK_FALSE(Contains(RunLanewise(wrong, plain).messages, "\033"));
  RunOptions dumb = terminal;
  dumb.environment["TERM"] = "dumb";
  CHECK_FALSE(Contains(RunLanewise(wrong, dumb).messages, "\033"));
}
