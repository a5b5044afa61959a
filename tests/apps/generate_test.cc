// generate --batch and --prompts: several texts, each as it is alone.
#include <doctest/doctest.h>

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
  const std::string data = kGolden + "/slot_rnn/prompt.txt", run = folder / "run";
  REQUIRE(
      RunLanewise({"train", "--model", "llama", "--data",  data, "--tokenizer", "byte", "--layers",
                   "1",     "--dim",   "16",    "--heads", "2",  "--ctx",       "24",   "--batch",
                   "2",     "--steps", "1",     "--out",   run,  "--quiet"})
          .code == 0);
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
  // Texts that are not finished are not printed.
  const RunResult stopped =
      RunLanewise(base + Words{"--batch", "2", "--tokens", "100000000"},
                  {.terminal_columns = 80, .signal = 2, .signal_when = "texts"});
  CHECK(stopped.code == 130);
  CHECK(stopped.output.empty());
  CHECK(RunLanewise(base + Words{"--batch", "2"}, {.close_output = true}).code == 141);
}
