// generate --batch and --prompts: several texts, each as it is alone.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/process.h"

namespace {

using Json = nlohmann::json;
using lanewise::testing::RunLanewise;
using lanewise::testing::RunOptions;
using lanewise::testing::RunResult;
using lanewise::testing::TemporaryFolder;

const std::string kGolden = std::string(LANEWISE_SOURCE_DIR) + "/tests/golden";
const std::string kChar = kGolden + "/slot_rnn/char.bin";

using Words = std::vector<std::string>;

Words operator+(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The lines of JSON that the program prints.
std::vector<Json> LinesOf(const Words& words, const std::string& input = "") {
  const RunResult result = RunLanewise(words, {.input = input});
  CAPTURE(result.messages);
  REQUIRE(result.code == 0);
  std::vector<Json> lines;
  std::istringstream text(result.output);
  for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line));
  return lines;
}

Json Alone(const Words& words) {
  const RunResult result = RunLanewise(words + Words{"--json"});
  CAPTURE(result.messages);
  REQUIRE(result.code == 0);
  return Json::parse(result.output);
}

void CheckSame(const Json& line, const Json& alone, size_t index) {
  CAPTURE(index);
  CHECK(line["index"] == index);
  for (const char* field : {"prompt", "text", "tokens", "prompt_tokens", "stop_reason", "seed"}) {
    CAPTURE(field);
    CHECK(line[field] == alone[field]);
  }
}

void CheckRefusal(const Words& words, int code, const Words& parts,
                  const RunOptions& options = {}) {
  const RunResult result = RunLanewise(words, options);
  CAPTURE(result.messages);
  CHECK(result.code == code);
  CHECK(result.output.empty());
  CHECK(result.messages.starts_with("error: "));
  for (const std::string& part : parts) CHECK(Contains(result.messages, part));
}

// "position" of a saved state: the tokens that the model has read.
std::string PositionOf(const std::string& state) {
  std::ifstream file(state, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t at = text.find("\"position\":");
  REQUIRE(at != std::string::npos);
  return text.substr(at, text.find_first_of(",}", at) - at);
}

// A llama with a context of 24 bytes.
std::string TrainLlama(const TemporaryFolder& folder, const Words& more = {}) {
  const std::string data = kGolden + "/slot_rnn/prompt.txt", run = folder / "run";
  const Words train = {"train", "--model",  "llama", "--data",  data, "--tokenizer",
                       "byte",  "--layers", "1",     "--dim",   "16", "--heads",
                       "2",     "--ctx",    "24",    "--batch", "2",  "--steps",
                       "1",     "--out",    run,     "--quiet"};
  REQUIRE(RunLanewise(train + more).code == 0);
  return run;
}

}  // namespace

TEST_CASE("--batch: sample i is the text of seed + i, however many there are") {
  const Words base = {"generate", kChar, "--prompt", "The ", "--tokens", "40", "--stop", "th"};
  const std::vector<Json> many = LinesOf(base + Words{"--batch", "20", "--seed", "7", "--json"});
  const std::vector<Json> few =
      LinesOf(base + Words{"--batch", "3", "--seed", "7", "--json", "--threads", "1"});
  REQUIRE(many.size() == 20);
  REQUIRE(few.size() == 3);
  for (size_t i = 0; i < few.size(); ++i) {
    const Json alone = Alone(base + Words{"--seed", std::to_string(7 + i)});
    CheckSame(many[i], alone, i);
    CheckSame(few[i], alone, i);
  }
  CHECK(many[0]["text"] != many[1]["text"]);

  const RunResult plain = RunLanewise(base + Words{"--batch", "2", "--seed", "7"});
  const auto text = [&](size_t i) { return "The " + few[i]["text"].get<std::string>(); };
  CHECK(plain.output ==
        "--- 1 of 2, seed 7 ---\n" + text(0) + "\n\n--- 2 of 2, seed 8 ---\n" + text(1) + "\n");
  CHECK(Contains(plain.messages, "[2 texts, "));
}

TEST_CASE("--prompts: a text for each line, of files and standard input") {
  const TemporaryFolder folder;
  const std::string text = "First Citizen\n\nAnd \r\nx\nwhat should be said of it, so long as";
  const Words prompts = {"First Citizen", "And ", "x", "what should be said of it, so long as"};
  const std::string file = folder.Write("prompts.txt", text);
  for (const char* temperature : {"0", "0.9"}) {
    const Words base = {"generate", kChar, "--tokens", "30", "--temp", temperature, "--seed", "3"};
    const std::vector<Json> lines = LinesOf(base + Words{"--prompts", file, "--json"});
    REQUIRE(lines.size() == prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      CheckSame(lines[i], Alone(base + Words{"--prompt", prompts[i]}), i);
    }
    const std::vector<Json> piped = LinesOf(base + Words{"--prompts", "-", "--json"}, text);
    REQUIRE(piped.size() == prompts.size());
    CHECK(piped[3]["text"] == lines[3]["text"]);
    const RunResult plain = RunLanewise(base + Words{"--prompts", file, "--no-echo"});
    CHECK(Contains(plain.output, "--- 4 of 4 ---\n" + lines[3]["text"].get<std::string>()));
  }
}

TEST_CASE("--prompts on a transformer: full and sliding contexts, prompts that are too long") {
  const TemporaryFolder folder;
  const std::string run = TrainLlama(folder);
  const std::string file = folder.Write("prompts.txt", "a\nsome words\nup to the last token.\n");
  const Words base = {"generate", run, "--tokens", "40", "--temp", "0.9"};
  const Words prompts = {"a", "some words", "up to the last token."};
  for (const Words& slide : {Words{}, Words{"--slide"}}) {
    const std::vector<Json> lines = LinesOf(base + slide + Words{"--prompts", file, "--json"});
    REQUIRE(lines.size() == prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      CheckSame(lines[i], Alone(base + slide + Words{"--prompt", prompts[i]}), i);
      CHECK(lines[i]["stop_reason"] == (slide.empty() ? "context" : "length"));
    }
  }
  const std::string wrong = folder.Write("long.txt", "a\n\n" + std::string(25, 'b') + "\n");
  CheckRefusal(base + Words{"--prompts", wrong}, 2, {"long.txt: line 3 has 25 tokens", "--slide"});
}

TEST_CASE("what --batch and --prompts refuse") {
  const TemporaryFolder folder;
  const std::string file = folder.Write("prompts.txt", "a\nb\n");
  const Words base = {"generate", kChar};
  for (const char* wrong : {"0", "-1", "two", "1.5"}) {
    CheckRefusal(base + Words{"--batch", wrong}, 2, {"--batch", wrong});
  }
  CheckRefusal(base + Words{"--batch", "2", "--prompts", file}, 2, {"--batch", "--prompts"});
  CheckRefusal(base + Words{"--batch", "2", "--interactive"}, 2, {"--batch", "--interactive"});
  CheckRefusal(base + Words{"--prompts", file, "--interactive"}, 2, {"--prompts", "--interactive"});
  CheckRefusal(base + Words{"--prompts", file, "--prompt", "x"}, 2, {"--prompts", "--prompt"});
  CheckRefusal(base + Words{"--prompts", file, "--save-state", "x"}, 2, {"--save-state"});
  CheckRefusal(base + Words{"--batch", "2", "--load-state", "x"}, 2, {"--load-state", "--batch"});
  CheckRefusal(base + Words{"--prompts", folder / "none.txt"}, 3, {"none.txt"});
  CheckRefusal(base + Words{"--prompts", folder.Write("e", "")}, 3, {"/e", "no prompts"});
  CheckRefusal(base + Words{"--prompts", folder.Write("blank", "\n\r\n\n")}, 3, {"no prompts"});
  CheckRefusal(base + Words{"--prompts", "-"}, 3, {"standard input", "no prompts"});
}

TEST_CASE("--batch: progress on a terminal, and what a signal leaves") {
  const Words base = {"generate", kChar, "--prompt", "x", "--json"};
  const RunResult live =
      RunLanewise(base + Words{"--batch", "3", "--tokens", "50"}, {.terminal_columns = 80});
  CHECK(live.code == 0);
  CHECK(Contains(live.messages, "0/3 texts"));
  // Texts that were begun are printed as they are.
  const RunResult stopped =
      RunLanewise(base + Words{"--batch", "2", "--tokens", "100000000"},
                  {.terminal_columns = 80, .signal = 2, .signal_when = "0/2 texts"});
  CHECK(stopped.code == 130);
  CHECK(Contains(stopped.messages, " stopped by Ctrl-C before their end"));
  std::istringstream lines(stopped.output);
  std::string line;
  REQUIRE(std::getline(lines, line));
  CHECK(Json::parse(line)["stop_reason"] == "interrupted");
  CHECK(RunLanewise(base + Words{"--batch", "2"}, {.close_output = true}).code == 141);
}

TEST_CASE("a signal ends a prompt that takes long to read, and JSON says so") {
  const TemporaryFolder folder;
  const std::string file = folder.Write("long.txt", std::string(4 << 20, 'e'));
  const std::string state = folder / "state";
  const RunResult stopped =
      RunLanewise({"generate", kChar, "--prompt-file", file, "--json", "--save-state", state},
                  {.terminal_columns = 80, .signal = 15, .signal_when = "reading the prompt"});
  CHECK(stopped.code == 143);
  const Json json = Json::parse(stopped.output, nullptr, false);
  REQUIRE(json.is_object());
  CHECK(json["stop_reason"] == "interrupted");
  CHECK(json["tokens"] == 0);
  CHECK(std::filesystem::exists(state));
}

TEST_CASE("a terminal that is closed leaves the state, while it writes and while it waits") {
  const TemporaryFolder folder;
  const std::string state = folder / "state";
  const Words base = {"generate", kChar, "--save-state", state};
  const auto closed_at = [&](const Words& more, const std::string& text) {
    std::filesystem::remove(state);
    const RunResult result = RunLanewise(base + more, {.close_terminal_when = text});
    CAPTURE(result.messages);
    CHECK(result.code == 129);
    CHECK(std::filesystem::exists(state));
  };
  closed_at({"--prompt", "The ", "--tokens", "1000000000"}, "The ");
  closed_at({"--interactive"}, "\n> ");
}

TEST_CASE("--tokens 0 reads the prompt and prints no text, of one or of several") {
  const Words base = {"generate", kChar, "--prompt", "The ", "--tokens", "0"};
  CHECK(RunLanewise(base).output.empty());
  CHECK_FALSE(Contains(RunLanewise(base + Words{"--batch", "2"}).output, "The "));
  CHECK(Alone(base)["prompt"] == "The ");
}

TEST_CASE("the line of a prompt ends where nothing is written after it") {
  const Words base = {"generate", kChar, "--prompt", "The ", "--temp", "0"};
  const std::string first = Alone(base + Words{"--tokens", "1"})["text"];
  const RunResult result = RunLanewise(base + Words{"--stop", first});
  CHECK(result.output == "The \n");
}

TEST_CASE("the speed is that of the model's steps: the first token comes with the prompt") {
  const auto base = [](const char* tokens) {
    return Words{"generate", kChar, "--prompt", "The ", "--tokens", tokens};
  };
  CHECK_FALSE(Contains(RunLanewise(base("1")).messages, "tokens/s"));
  CHECK(Alone(base("1"))["tokens_per_second"].is_null());
  const std::vector<Json> reports = {Alone(base("5")),
                                     LinesOf(base("5") + Words{"--batch", "2", "--json"})[1]};
  for (const Json& json : reports) {
    const double steps = json["tokens_per_second"].get<double>() * json["seconds"].get<double>();
    CHECK(steps == doctest::Approx(4));
  }
}

TEST_CASE("states of a transformer: what is saved can be loaded as the message says") {
  const TemporaryFolder folder;
  const std::string run = TrainLlama(folder), state = folder / "state";
  const Words base = {"generate", run, "--temp", "0", "--no-echo"};
  const Words save = {"--save-state", state};
  const auto load = [&](const Words& more) {
    return RunLanewise(base + Words{"--load-state", state, "--tokens", "3"} + more);
  };
  // Nothing is printed or saved of a prompt that is too long.
  for (const char* tokens : {"0", "9"}) {
    CheckRefusal({"generate", run, "--prompt", std::string(30, 'b'), "--tokens", tokens,
                  "--save-state", state},
                 2, {"the prompt has 30 tokens", "room for 24"});
  }
  CHECK_FALSE(std::filesystem::exists(state));

  const RunResult some = RunLanewise(base + save + Words{"--prompt", "a", "--tokens", "9"});
  CHECK(Contains(some.messages, "go on with: lanewise generate"));
  CHECK_FALSE(Contains(some.messages, "--slide"));
  CHECK(load({}).code == 0);
  // A full context can only slide.
  const RunResult full = RunLanewise(base + save + Words{"--prompt", "a", "--tokens", "50"});
  CHECK(Contains(full.messages, "context is full, so it goes on sliding: lanewise generate"));
  CHECK(Contains(full.messages, "/state --slide"));
  CheckRefusal(base + Words{"--load-state", state}, 2, {"context is full", "--slide"});
  CHECK(RunLanewise(base + Words{"--load-state", state, "--tokens", "0"}).code == 0);
  const RunResult slid = load({"--slide"});
  CHECK(slid.code == 0);
  const Words prompt = {"--prompt", "a", "--slide", "--json"};
  const std::string whole = Alone(base + prompt + Words{"--tokens", "27"})["text"];
  const std::string first = Alone(base + prompt + Words{"--tokens", "24"})["text"];
  CHECK(Json::parse(load({"--slide", "--json"}).output)["text"] == whole.substr(first.size()));

  const Words beyond = {"--prompt", "a", "--tokens", "50", "--slide"};
  CHECK(RunLanewise(base + save + beyond).code == 0);
  CheckRefusal(base + Words{"--load-state", state}, 3, {"beyond the model's context", "--slide"});

  const RunResult half = RunLanewise(
      base + save + Words{"--prompt", "a", "--tokens", "50", "--slide", "--dtype", "bf16"});
  CHECK(Contains(half.messages, "--slide --dtype bf16"));
  CheckRefusal(base + Words{"--load-state", state, "--slide"}, 3, {"saved with --dtype bf16"});
  CHECK(load({"--slide", "--dtype", "bf16"}).code == 0);
}

TEST_CASE("a conversation goes on after a line that is too long, and lines end in CR LF too") {
  const TemporaryFolder folder;
  const std::string run = TrainLlama(folder), state = folder / "state";
  const RunResult talk = RunLanewise(
      {"generate", run, "--interactive", "--tokens", "2", "--temp", "0", "--save-state", state},
      {.input = "a\n" + std::string(40, 'b') + "\nc\n"});
  CAPTURE(talk.messages);
  CHECK(talk.code == 0);
  CHECK(Contains(talk.messages, "the prompt has 42 tokens"));
  CHECK(std::filesystem::exists(state));
  const std::string other = folder / "other";
  const RunResult without = RunLanewise(
      {"generate", run, "--interactive", "--tokens", "2", "--temp", "0", "--save-state", other},
      {.input = "a\r\nc\n"});
  CHECK(talk.output == without.output);
  CHECK(PositionOf(state) == PositionOf(other));
}

TEST_CASE("a conversation whose answers end at a newline reads it once") {
  const TemporaryFolder folder;
  const std::string talked = folder / "talked", read = folder / "read";
  const Words base = {"generate", kChar, "--seed", "3"};
  const RunResult talk = RunLanewise(base + Words{"--interactive", "--stop", "\n", "--tokens",
                                                  "5000", "--temp", "0.9", "--save-state", talked},
                                     {.input = "Hello there\nWorld is\n"});
  REQUIRE(talk.code == 0);
  const size_t end = talk.output.find('\n');
  REQUIRE(end + 1 < talk.output.size());  // two answers
  const std::string text =
      "Hello there\n" + talk.output.substr(0, end + 1) + "World is\n" + talk.output.substr(end + 1);
  REQUIRE(RunLanewise(base + Words{"--prompt", text, "--tokens", "0", "--save-state", read}).code ==
          0);
  CHECK(PositionOf(talked) == PositionOf(read));
}

TEST_CASE("a vocabulary larger than the tokenizer's: what has no text is never drawn") {
  const TemporaryFolder folder;
  const std::string run = TrainLlama(folder, {"--vocab", "2000"}), state = folder / "state";
  const Json first = Alone({"generate", run, "--prompt", "a", "--tokens", "12", "--temp", "50",
                            "--top-p", "1", "--save-state", state});
  CHECK(!first["text"].get<std::string>().empty());
  CHECK(RunLanewise({"generate", run, "--load-state", state, "--tokens", "2"}).code == 0);
}
