// Models from one format to another, and what becomes of their tokenizers.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

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

const std::string kGolden = std::string(LANEWISE_SOURCE_DIR) + "/tests/golden";
const std::string kChar = kGolden + "/slot_rnn/char.bin";
const std::string kPrompt = kGolden + "/slot_rnn/prompt.txt";

Json JsonOf(const std::vector<std::string>& arguments) {
  return Json::parse(Succeed(arguments).output);
}

}  // namespace

TEST_CASE("convert says where it writes half precision, which the environment may have asked for") {
  const TemporaryFolder folder;
  const RunResult half = RunLanewise({"convert", kChar, folder / "half"},
                                     {.environment = {{"LANEWISE_DTYPE", "bf16"}}});
  CHECK(half.messages == "Wrote " + (folder / "half") + ", matrices in bf16\n");
  const RunResult full = RunLanewise({"convert", kChar, folder / "full"});
  CHECK(full.messages == "Wrote " + (folder / "full") + "\n");
}

TEST_CASE("convert: every way there and back gives the same model") {
  const TemporaryFolder folder;
  const auto convert = [](const std::vector<std::string>& words) {
    std::vector<std::string> arguments = {"convert"};
    arguments.insert(arguments.end(), words.begin(), words.end());
    return RunLanewise(arguments);
  };
  CHECK(convert({kChar, folder / "model"}).code == 0);
  CHECK(convert({folder / "model", folder / "back.bin"}).code == 0);
  CHECK(ReadWhole(folder / "back.bin") == ReadWhole(kChar));
  const Json before = JsonOf({"eval", kChar, "--data", kPrompt, "--json"});
  CHECK(JsonOf({"eval", folder / "model", "--data", kPrompt, "--json"}) == before);

  const std::string llama = kGolden + "/llama/llama_gqa_tied.bin";
  CHECK(convert({llama, folder / "llama"}).code == 0);
  CHECK(convert({folder / "llama", folder / "v1.bin", "--version", "1"}).code == 0);
  CHECK(convert({folder / "v1.bin", folder / "v0.bin"}).code == 0);
  CHECK(ReadWhole(folder / "v0.bin").size() == ReadWhole(llama).size());

  // Half the space; loaded as float32 or as bf16 it is the same model, close to the first.
  CHECK(convert({kChar, folder / "half", "--dtype", "bf16"}).code == 0);
  CHECK(ReadWhole(folder / "half/model.safetensors").size() <
        0.7 * static_cast<double>(ReadWhole(folder / "model/model.safetensors").size()));
  const auto loss = [&](const std::string& model, const std::string& dtype) {
    return JsonOf({"eval", model, "--data", kPrompt, "--json", "--dtype", dtype})["cross_entropy"]
        .get<double>();
  };
  CHECK(loss(folder / "half", "bf16") ==
        doctest::Approx(loss(folder / "half", "float32")).epsilon(1e-5));
  CHECK(loss(folder / "half", "bf16") ==
        doctest::Approx(loss(folder / "model", "bf16")).epsilon(1e-5));
  CHECK(loss(folder / "half", "bf16") ==
        doctest::Approx(before["cross_entropy"].get<double>()).epsilon(0.02));
  CHECK(loss(folder / "half", "float32") != before["cross_entropy"].get<double>());
  CHECK(convert({kChar, folder / "half.bin", "--dtype", "bf16"}).code == 2);

  CHECK(convert({kChar, folder / "model"}).code == 2);
  CHECK(convert({kChar, folder / "back.bin"}).code == 2);
  CHECK(convert({kChar, folder / "back.bin", "--force"}).code == 0);
  CHECK(convert({kChar, folder / "x.bin", "--version", "1"}).code == 2);
  CHECK(convert({kChar, folder / "none/x.bin"}).code == 0);
  CHECK(convert({kChar, folder / "none/x.bin/y.bin"}).code == 4);
}

TEST_CASE("convert makes no folder for what it refuses") {
  const TemporaryFolder folder;
  const std::string model = folder / "model";
  REQUIRE(RunLanewise({"convert", kGolden + "/llama/llama_gqa_tied.bin", model}).code == 0);
  std::filesystem::remove(model + "/MANIFEST.json");
  Json config = Json::parse(ReadWhole(model + "/config.json"));
  config["rope_theta"] = 500;
  folder.Write("model/config.json", config.dump());
  CheckRefusal({"convert", model, folder / "new/a/b.bin"}, 2, {"rope_theta"});
  CheckRefusal(
      {"convert", kGolden + "/llama/llama_gqa_tied.bin", folder / "new/a", "--version", "1"}, 2,
      {"--version"});
  CHECK_FALSE(std::filesystem::exists(folder / "new"));
  std::filesystem::create_symlink("none/model", folder / "link");
  CheckRefusal({"convert", model, folder / "link"}, 2, {"/link is a symbolic link to none/model"});
  CHECK(RunLanewise({"convert", model, folder / "new/a/b"}).code == 0);
}

TEST_CASE("bytes that the seed's format has no token for are said") {
  const TemporaryFolder folder;
  const std::string run = folder / "run", file = folder / "run.bin";
  std::string text;
  for (int i = 0; i < 60; ++i) text += "the quick brown fox jumps\n";
  const std::string known = folder.Write("known.txt", text);
  REQUIRE(RunLanewise({"train", "--data",  known,     "--tokenizer", "char",  "--layers", "1",
                       "--dim", "16",      "--heads", "2",           "--ctx", "8",        "--batch",
                       "2",     "--steps", "1",       "--out",       run,     "--quiet"})
              .code == 0);
  CHECK(Contains(RunLanewise({"convert", run, file}).messages, "outside the model's alphabet"));
  const std::string data = folder.Write("data.txt", text + "\x01\x02");
  CHECK(Contains(RunLanewise({"eval", file, "--data", data}).messages, "Note: 2 bytes of "));
  CHECK_FALSE(Contains(RunLanewise({"eval", file, "--data", known}).messages, "Note"));
  CHECK_FALSE(Contains(RunLanewise({"eval", run, "--data", data}).messages, "Note"));
  const std::string words = kGolden + "/slot_rnn/word.bin";
  const std::string odd = folder.Write("odd.txt", "zyxwv zyxwv ");
  CHECK(
      Contains(RunLanewise({"eval", words, "--data", odd}).messages, "Note: 2 tokens of 4 stand"));
}

TEST_CASE("merges and words are learned from the text, as many as --vocab says") {
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText(400)), run = folder / "run";
  std::vector<std::string> words = Tiny(data, run, {"--steps", "2", "--vocab", "300"});
  std::string& kind = *std::ranges::find(words, "char");
  kind = "bpe";
  CHECK(Contains(Succeed(words).messages, "bpe tokenizer"));
  CHECK(Json::parse(Succeed({"info", run, "--json"}).output)["config"]["vocab_size"] == 300);
  words.insert(words.end(), {"--resume", "--steps", "4"});
  Succeed(words);
  CHECK(!Succeed({"generate", run, "--prompt", "the quick", "--tokens", "20"}).output.empty());
  CheckRefusal({"convert", run, folder / "run.bin"}, 2, {"bpe"});
  CHECK(Contains(
      Succeed({"train", "--from", run, "--data", data, "--out", folder / "from", "--steps", "1"})
          .messages,
      "bpe tokenizer"));

  words = Tiny(data, folder / "words", {"--steps", "1", "--vocab", "260"});
  *std::ranges::find(words, "char") = "word";
  Succeed(words);
  const std::string tokenizer = ReadWhole(folder / "words/tokenizer.json");
  CHECK(Json::parse(tokenizer)["words"].size() == 4);
  for (const std::string& first : {run, folder / "words"}) {
    Succeed({"train", "--config", first + "/config.json", "--out", first + "2", "--threads", "1"});
    CHECK(ReadWhole(first + "2/tokenizer.json") == ReadWhole(first + "/tokenizer.json"));
  }
}
