// eval, gradients, generate and info on model files of other programs.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/apps/refusal.h"
#include "tests/support/process.h"

namespace {

using Json = nlohmann::json;
using lanewise::testing::CheckRefusal;
using lanewise::testing::Contains;
using lanewise::testing::ReadWhole;
using lanewise::testing::RunLanewise;
using lanewise::testing::RunOptions;
using lanewise::testing::RunResult;
using lanewise::testing::TemporaryFolder;

const std::string kGolden = std::string(LANEWISE_SOURCE_DIR) + "/tests/golden";
const std::string kChar = kGolden + "/slot_rnn/char.bin";
const std::string kPrompt = kGolden + "/slot_rnn/prompt.txt";

Json JsonOf(const std::vector<std::string>& arguments) {
  const RunResult result = RunLanewise(arguments);
  CAPTURE(arguments[1]);
  CAPTURE(result.messages);
  REQUIRE(result.code == 0);
  return Json::parse(result.output);
}

// The ids of a fixture in a file.
std::string IdsFile(const TemporaryFolder& folder, const Json& expected) {
  std::string text;
  for (const Json& id : expected["tokens"]) text += id.dump() + "\n";
  return folder.Write("ids.txt", text);
}

struct Fixture {
  std::string model, expected;
};

const std::vector<Fixture> kFixtures = {
    {"slot_rnn/char.bin", "slot_rnn/char_grad.json"},
    {"slot_rnn/char_v1.bin", "slot_rnn/char_grad.json"},
    {"slot_rnn/word.bin", "slot_rnn/word_grad.json"},
    {"slot_rnn/stress.bin", "slot_rnn/stress_grad.json"},
    {"llama/llama_gqa_tied.bin", "llama/llama_gqa_tied_grad.json"},
    {"llama/llama_mha_untied.bin", "llama/llama_mha_untied_grad.json"}};

}  // namespace

TEST_CASE("eval agrees with the fixtures, for each token") {
  for (const Fixture& fixture : kFixtures) {
    CAPTURE(fixture.model);
    const TemporaryFolder folder;
    const Json expected = Json::parse(ReadWhole(kGolden + "/" + fixture.expected));
    const Json result = JsonOf({"eval", kGolden + "/" + fixture.model, "--token-ids",
                                IdsFile(folder, expected), "--json", "--per-token"});
    const double loss = expected["losses"]["label_smoothing=0.0"];
    CHECK(result["tokens"] == expected["tokens"].size());
    CHECK(std::fabs(result["cross_entropy"].get<double>() - loss) < 1e-5);
    CHECK(std::fabs(result["perplexity"].get<double>() - std::exp(loss)) < 1e-4 * std::exp(loss));
    CHECK(result["bits_per_byte"].is_null());
    const Json& tokens = result["token_cross_entropy"];
    REQUIRE(tokens.size() == expected["token_cross_entropy"].size());
    double largest = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      largest = std::fmax(largest, std::fabs(tokens[i].get<double>() -
                                             expected["token_cross_entropy"][i].get<double>()));
    }
    CHECK(largest < 1e-4);
  }
}

TEST_CASE("eval of text: bits per byte, the same from a folder, by pipe and in plain text") {
  const TemporaryFolder folder;
  const Json file = JsonOf({"eval", kChar, "--data", kPrompt, "--json"});
  const double bits = file["cross_entropy"].get<double>() / std::log(2.0) *
                      (file["tokens"].get<double>() - 1) / file["tokens"].get<double>();
  CHECK(file["bits_per_byte"].get<double>() == doctest::Approx(bits).epsilon(0.02));
  folder.Write("texts/a.txt", ReadWhole(kPrompt));
  CHECK(JsonOf({"eval", kChar, "--data", folder / "texts", "--json"}) == file);
  const RunResult piped =
      RunLanewise({"eval", kChar, "--data", "-", "--json"}, {.input = ReadWhole(kPrompt)});
  CAPTURE(piped.messages);
  CHECK(Json::parse(piped.output, nullptr, false) == file);
  const std::vector<std::string> ids = {"eval", kChar, "--json", "--token-ids"};
  std::vector<std::string> from_file = ids, from_pipe = ids;
  from_file.push_back(folder.Write("ids.txt", "1 2 3 4"));
  from_pipe.push_back("-");
  const RunResult piped_ids = RunLanewise(from_pipe, {.input = "1 2\n3 4\n"});
  CHECK(Json::parse(piped_ids.output, nullptr, false) == JsonOf(from_file));
  const RunResult plain = RunLanewise({"eval", kChar, "--data", kPrompt});
  CHECK(Contains(plain.output, "cross_entropy"));
  CHECK(Contains(plain.output, "bits_per_byte"));
}

TEST_CASE("gradients agree with the fixtures") {
  for (const char* smoothing : {"0.0", "0.1"}) {
    const TemporaryFolder folder;
    const Json expected = Json::parse(ReadWhole(kGolden + "/slot_rnn/char_grad.json"));
    const std::string key = std::string("label_smoothing=") + smoothing;
    const Json result = JsonOf({"gradients", kChar, "--token-ids", IdsFile(folder, expected),
                                "--label-smoothing", smoothing, "--json"});
    CHECK(std::fabs(result["loss"].get<double>() - expected["losses"][key].get<double>()) < 1e-5);
    const Json& all = expected["gradients"][key];
    CHECK(result["parameters"].size() == all.size());
    for (const auto& [name, gradient] : all.items()) {
      CAPTURE(name);
      REQUIRE(result["parameters"].contains(name));
      const Json& figures = result["parameters"][name];
      const double norm = gradient["l2"];
      CHECK(figures["shape"] == gradient["shape"]);
      CHECK(std::fabs(figures["l2"].get<double>() - norm) < 1e-4 * norm);
      CHECK(std::fabs(figures["max_abs"].get<double>() - gradient["max_abs"].get<double>()) <
            1e-4 * norm);
      CHECK(std::fabs(figures["sum"].get<double>() - gradient["sum"].get<double>()) <
            1e-3 * norm + 1e-6);
    }
  }
}

TEST_CASE("generate: deterministic, greedy, streaming and JSON agree") {
  const std::vector<std::string> base = {"generate", kChar, "--prompt", "The ", "--tokens", "40"};
  const RunResult once = RunLanewise(base);
  CHECK(once.code == 0);
  CHECK(once.output.starts_with("The "));
  CHECK(RunLanewise(base).output == once.output);
  std::vector<std::string> words = base;
  words.insert(words.end(), {"--json"});
  const Json json = JsonOf(words);
  CHECK(json["prompt"] == "The ");
  CHECK(json["tokens"] == 40);
  CHECK(json["tokens_per_second"].get<double>() > 0);
  const std::string text = json["text"];
  CHECK(once.output.starts_with("The " + text));
  words = base;
  words.insert(words.end(), {"--seed", "5"});
  CHECK(RunLanewise(words).output != once.output);
  words = base;
  words.insert(words.end(), {"--temp", "0", "--seed", "1"});
  const RunResult greedy = RunLanewise(words);
  words.back() = "2";
  CHECK(RunLanewise(words).output == greedy.output);
  words.insert(words.end(), {"--threads", "3"});
  CHECK(RunLanewise(words).output == greedy.output);
}

TEST_CASE("generate: a stop text ends the text and is not part of it") {
  const std::vector<std::string> base = {"generate", kChar, "--prompt", "The ",
                                         "--tokens", "60",  "--json"};
  const std::string whole = JsonOf(base)["text"];
  for (const size_t at : {5, 11, 20}) {
    const std::string stop = whole.substr(at, 3);
    std::vector<std::string> words = base;
    words.insert(words.end(), {"--stop", "never said", "--stop", stop});
    const Json json = JsonOf(words);
    CAPTURE(stop);
    CHECK(json["text"] == whole.substr(0, whole.find(stop)));
    CHECK(json["stop_reason"] == "stop");
  }
}

TEST_CASE("generate: a saved state goes on as if nothing had been between") {
  const TemporaryFolder folder;
  const std::string state = folder / "state";
  const std::vector<std::string> greedy = {"--temp", "0", "--json"};
  const auto run = [&](std::vector<std::string> words) {
    words.insert(words.end(), greedy.begin(), greedy.end());
    words.insert(words.begin(), {"generate", kChar});
    return JsonOf(words)["text"].get<std::string>();
  };
  const std::string whole = run({"--prompt", "First Citizen", "--tokens", "30"});
  const std::string first =
      run({"--prompt", "First Citizen", "--tokens", "10", "--save-state", state});
  CHECK(first + run({"--load-state", state, "--tokens", "20"}) == whole);
  // Only the prompt, then its text.
  run({"--prompt", "First Citizen", "--tokens", "0", "--save-state", state});
  CHECK(run({"--load-state", state, "--tokens", "30"}) == whole);

  const RunResult foreign =
      RunLanewise({"generate", kGolden + "/slot_rnn/stress.bin", "--load-state", state});
  CHECK(foreign.code == 3);
  const RunResult other =
      RunLanewise({"generate", kGolden + "/slot_rnn/word.bin", "--load-state", state});
  CHECK(other.code == 3);
  CHECK(Contains(other.messages, "another model"));
  const RunResult wrong = RunLanewise({"generate", kChar, "--load-state", kPrompt});
  CHECK(wrong.code == 3);
}

TEST_CASE("generate: prompts from files, standard input and conversations") {
  const std::vector<std::string> tail = {"--tokens", "20", "--temp", "0"};
  const auto run = [&](std::vector<std::string> words, const std::string& input = "") {
    words.insert(words.end(), tail.begin(), tail.end());
    words.insert(words.begin(), {"generate", kChar});
    const RunResult result = RunLanewise(words, {.input = input});
    CAPTURE(result.messages);
    CHECK(result.code == 0);
    return result.output;
  };
  const std::string prompt = ReadWhole(kPrompt);
  const std::string expected = run({"--prompt", prompt});
  CHECK(run({"--prompt-file", kPrompt}) == expected);
  CHECK(run({"--prompt-file", "-"}, prompt) == expected);
  CHECK("" + prompt + run({"--prompt", prompt, "--no-echo"}) == expected);

  const std::string talk = run({"--interactive"}, "First Citizen:\nAnd you?\n");
  const std::string first = run({"--prompt", "First Citizen:\n", "--no-echo"});
  CHECK(talk.starts_with(first));
  CHECK(talk.size() > first.size());
  CHECK(run({}).size() >= 20);  // no prompt at all
}

TEST_CASE("info describes models of every format") {
  const Json json = JsonOf({"info", kChar, "--json"});
  CHECK(json["format"] == "lrnnC02");
  CHECK(json["config"]["dim"] == 32);
  CHECK(json["tokenizer"]["kind"] == "seed-char");
  CHECK(json["parameters"].get<int>() > 20000);
  CHECK(Contains(RunLanewise({"info", kChar}).output, "slot_rnn"));
  CHECK(Contains(RunLanewise({"info", kGolden + "/llama/llama_gqa_tied.bin"}).output, "llama"));
}

TEST_CASE("convert and info refuse tensors that do not fit the configuration") {
  const TemporaryFolder folder;
  const std::string model = folder / "model", config = model + "/config.json";
  REQUIRE(RunLanewise({"convert", kChar, model}).code == 0);
  std::filesystem::remove(model + "/MANIFEST.json");
  const Json right = Json::parse(ReadWhole(config));
  for (const char* field : {"layers", "ffn_dim"}) {
    for (const int more : {-1, 1}) {
      CAPTURE(field);
      Json wrong = right;
      wrong[field] = right[field].get<int>() + more;
      folder.Write("model/config.json", wrong.dump());
      CheckRefusal({"convert", model, folder / "out"}, 3, {model, "tensor"});
      CheckRefusal({"info", model}, 3, {model, "tensor"});
    }
  }
  CHECK_FALSE(std::filesystem::exists(folder / "out"));
  folder.Write("model/config.json", right.dump());
  CHECK(RunLanewise({"convert", model, folder / "out"}).code == 0);
}

TEST_CASE("a config.json that is wrong is bad input to every command") {
  const TemporaryFolder folder;
  const std::string model = folder / "model", out = folder / "out";
  REQUIRE(RunLanewise({"convert", kChar, model}).code == 0);
  std::filesystem::remove(model + "/MANIFEST.json");
  const Json right = Json::parse(ReadWhole(model + "/config.json"));
  const std::vector<std::pair<std::string, Json>> changes = {
      {"ctx", "64"}, {"ctx", nullptr}, {"ctx", -5},      {"ctx", 0},       {"model", 5},
      {"dim", "x"},  {"layers", "9"},  {"ffn_dim", "x"}, {"heads", false},
  };
  for (const auto& [field, value] : changes) {
    CAPTURE(field);
    Json wrong = right;
    wrong[field] = value;
    if (value.is_null()) wrong.erase(field);
    folder.Write("model/config.json", wrong.dump());
    const std::vector<std::string> parts = {model, "\"" + field + "\""};
    CheckRefusal({"train", "--from", model, "--data", kPrompt, "--out", out}, 3, parts);
    CheckRefusal({"plan", "--from", model}, 3, parts);
    CheckRefusal({"bench", "decode", "--from", model}, 3, parts);
    CheckRefusal({"info", model}, 3, parts);
  }
  // What the model does not read is not checked.
  for (const Json& training : {Json(5), Json({{"steps", "x"}}), Json({{"schedule", 7}})}) {
    Json other = right;
    other["training"] = training;
    other["tied"] = 3;
    folder.Write("model/config.json", other.dump());
    CHECK(RunLanewise({"info", model}).code == 0);
    CHECK(RunLanewise({"bench", "decode", "--from", model, "--steps", "1"}).code == 0);
  }
  CHECK_FALSE(std::filesystem::exists(out));

  const std::string llama = folder / "llama";
  REQUIRE(RunLanewise({"convert", kGolden + "/llama/llama_gqa_tied.bin", llama}).code == 0);
  std::filesystem::remove(llama + "/MANIFEST.json");
  for (const double eps : {1e-60, 1e60}) {
    Json config = Json::parse(ReadWhole(llama + "/config.json"));
    config["norm_eps"] = eps;
    folder.Write("llama/config.json", config.dump());
    CheckRefusal({"bench", "decode", "--from", llama}, 3, {llama, "\"norm_eps\""});
  }
}

TEST_CASE("a missing tokenizer is said with what helps") {
  const TemporaryFolder folder;
  const std::string llama = kGolden + "/llama/llama_gqa_tied.bin";
  REQUIRE(RunLanewise({"convert", llama, folder / "llama"}).code == 0);
  CheckRefusal({"generate", folder / "llama", "--prompt", "x"}, 3, {"tokenizer.json in it"});
  CHECK_FALSE(Contains(RunLanewise({"generate", llama, "--prompt", "x"}).messages, "--token-ids"));
  CheckRefusal({"eval", llama, "--data", kPrompt}, 3, {"tokenizer.bin beside it", "--token-ids"});
  const std::string rnn = folder / "rnn";
  REQUIRE(RunLanewise({"convert", kChar, rnn}).code == 0);
  std::filesystem::remove(rnn + "/MANIFEST.json");
  std::filesystem::remove(rnn + "/tokenizer.json");
  CheckRefusal({"convert", rnn, folder / "rnn.bin"}, 3, {rnn + ": has no tokenizer", "folder"});
}

TEST_CASE("outputs that are not finite are an error, not a result") {
  const TemporaryFolder folder;
  std::string bytes = ReadWhole(kChar);
  const float huge = 3e38F;
  for (size_t i = 0; i < 1856; ++i) {
    std::memcpy(bytes.data() + bytes.size() - 4 * (i + 1), &huge, sizeof huge);
  }
  const std::string model = folder.Write("huge.bin", bytes);
  CheckRefusal({"eval", model, "--data", kPrompt}, 3, {model, "not finite"});
  CheckRefusal({"generate", model, "--no-echo", "--prompt", "x"}, 3, {"not finite"});
  CheckRefusal({"generate", model, "--prompt", "x", "--batch", "3"}, 3, {"not finite"});
}

TEST_CASE("bench runs the real paths, also with the sizes of a model that exists") {
  const auto bench = [](std::vector<std::string> words) {
    words.insert(words.begin(), "bench");
    words.insert(words.end(), {"--steps", "1", "--threads", "1", "--json"});
    return JsonOf(words);
  };
  const Json decode = bench({"decode", "--from", kChar});
  CHECK(decode["path"] == "decode");
  CHECK(decode["model"]["dim"] == JsonOf({"info", kChar, "--json"})["config"]["dim"]);
  CHECK(decode["tokens_per_second"].get<double>() > 0);
  CHECK(decode["bandwidth_gbs"].get<double>() > 0);
  CHECK(decode["peak_bandwidth_gbs"].get<double>() > 0);
  CHECK(decode["bandwidth_share"].get<double>() > 0);
  const Json prefill =
      bench({"prefill", "--from", kGolden + "/llama/llama_gqa_tied.bin", "--ctx", "8"});
  CHECK(prefill["path"] == "prefill");
  CHECK(prefill["model"]["ctx"] == 8);
  CHECK(prefill["mfu"].get<double>() > 0);
  CHECK(prefill["bandwidth_gbs"].is_null());
  CHECK(prefill["bandwidth_share"].is_null());
  for (const char* path : {"prefill", "decode"}) {
    const TemporaryFolder folder;
    bench({path, "--from", kGolden + "/llama/llama_gqa_tied.bin", "--profile", folder / "trace"});
    CHECK(Contains(ReadWhole(folder / "trace"), "cached attention"));
  }
  const Json train = bench(
      {"train", "--layers", "1", "--dim", "16", "--heads", "2", "--ctx", "8", "--batch", "2"});
  CHECK(train["path"] == "train");
  CHECK(train["peak_gflops"].get<double>() > 0);
  CHECK(RunLanewise({"bench", "decode", "--from", kChar, "--layers", "2"}).code == 2);
}

TEST_CASE("the peak of memory is the program's own, not that of the one which started it") {
  const std::vector<char> ours(size_t{400} << 20, 1);
  const Json decode = JsonOf({"bench", "decode", "--from", kChar, "--steps", "1", "--json"});
  CHECK(decode["peak_memory_bytes"].get<size_t>() > 0);
  CHECK(decode["peak_memory_bytes"].get<size_t>() < ours.size());
}

TEST_CASE("files that are no model, and models of another kind") {
  const TemporaryFolder folder;
  const std::string noise =
      folder.Write("noise.bin", "this is not a model, whatever its name says");
  const std::string empty = folder.Write("empty.bin", "");
  const std::string bytes = ReadWhole(kChar);
  const std::string cut = folder.Write("cut.bin", bytes.substr(0, bytes.size() / 2));
  const std::string none = folder / "none";
  for (const std::string& path : {noise, empty, cut, none, folder.path()}) {
    CAPTURE(path);
    const RunResult result = RunLanewise({"eval", path, "--data", kPrompt});
    CHECK(result.code == 3);
    CHECK(result.output.empty());
    CHECK(Contains(result.messages, path));
    CHECK(RunLanewise({"info", path}).code == 3);
    CHECK(RunLanewise({"generate", path, "--prompt", "x"}).code == 3);
  }
  const RunResult text =
      RunLanewise({"generate", kGolden + "/llama/llama_gqa_tied.bin", "--prompt", "x"});
  CHECK(text.code == 3);
  CHECK(Contains(text.messages, "tokenizer"));
}

TEST_CASE("texts and ids that cannot be evaluated") {
  const TemporaryFolder folder;
  const auto code = [&](const std::string& option, const std::string& path,
                        const std::string& part) {
    const RunResult result = RunLanewise({"eval", kChar, option, path});
    CAPTURE(path);
    CAPTURE(result.messages);
    CHECK(Contains(result.messages, part));
    CHECK(result.output.empty());
    return result.code;
  };
  CHECK(code("--data", folder / "none.txt", "none.txt") == 3);
  CHECK(code("--data", folder.Write("empty.txt", ""), "empty.txt") == 3);
  CHECK(code("--data", folder.Write("one.txt", "a"), "one.txt") == 3);
  CHECK(code("--token-ids", folder.Write("ids.txt", "1 2\n999999"), "ids.txt") == 3);
  CHECK(code("--token-ids", folder.Write("words.txt", "1 two"), "words.txt") == 3);
}

TEST_CASE("a reader that has gone ends the program without a word") {
  const RunResult result = RunLanewise({"generate", kChar, "--prompt", "x", "--tokens", "100000"},
                                       {.close_output = true});
  CHECK(result.code == 141);
  CHECK(result.messages.empty());
  CHECK(RunLanewise({"eval", kChar, "--data", kPrompt, "--json"}, {.close_output = true}).code ==
        141);
  CHECK(RunLanewise({"eval", kChar, "--data", kPrompt}, {.output_path = "/dev/full"}).code == 4);
}

TEST_CASE("a signal ends a text after a whole token, and JSON has what there is") {
  for (const int signal : {2, 15}) {
    const RunResult stopped =
        RunLanewise({"generate", kChar, "--prompt", "x", "--tokens", "100000000"},
                    {.signal = signal, .signal_when = "e"});
    CHECK(stopped.code == 128 + signal);
    CHECK(stopped.output.back() == '\n');
  }
  const RunResult json = RunLanewise(
      {"generate", kChar, "--prompt", std::string(2000, 'x'), "--tokens", "100000000", "--json"},
      {.terminal_columns = 80, .signal = 2, .signal_when = "prompt"});
  CHECK(json.code == 130);
  CHECK(Json::parse(json.output, nullptr, false)["stop_reason"] == "interrupted");
}
