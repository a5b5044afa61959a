// The program on other machines: older x86-64 CPUs and, after `./dev aarch64`, Arm, each emulated
// by QEMU; and after `./dev windows` the one for Windows under Wine. What one machine writes the
// other reads, and both compute the same to 1e-5.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/targets.h"
#include "tests/support/process.h"

namespace {

using Json = nlohmann::json;
using lanewise::testing::ReadWhole;
using lanewise::testing::RunOptions;
using lanewise::testing::RunProcess;
using lanewise::testing::RunResult;
using lanewise::testing::TemporaryFolder;
using Words = std::vector<std::string>;

constexpr double kTolerance = 1e-5;

struct Machine {
  Words program;       // with what runs it
  std::string target;  // the SIMD target that it must choose
  bool trains = true;
};

// The path of an emulator, or "".
std::string FindInPath(const std::string& name) {
  std::istringstream folders(std::getenv("PATH"));
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::filesystem::path path = std::filesystem::path(folder) / name;
    if (std::filesystem::exists(path)) return path.string();
  }
  return "";
}

// A build for this CPU alone runs on no other.
#if defined(LANEWISE_NATIVE)
constexpr bool kNative = true;
#else
constexpr bool kNative = false;
#endif

std::string X86Emulator() {
#if defined(__x86_64__)
  return FindInPath("qemu-x86_64");
#else
  return "";
#endif
}

[[noreturn]] void SkipAll(const char* why) {
  std::printf("skipped: %s\n", why);
  std::exit(77);
}

Machine Here() { return {{LANEWISE_BINARY_DIR "/lanewise"}, ""}; }

std::vector<Machine> OtherMachines() {
  std::vector<Machine> machines;
  if (const std::string qemu = X86Emulator(); !qemu.empty()) {
    machines.push_back({{qemu, "-cpu", "Nehalem", Here().program[0]}, "SSE2"});
    // QEMU is slow at AVX2's fused products; real CPUs prove them in the kernels' tests.
    machines.push_back({{qemu, "-cpu", "Haswell", Here().program[0]}, "AVX2", false});
  }
  const char* arm = std::getenv("LANEWISE_AARCH64_PROGRAM");
  if (const std::string qemu = FindInPath("qemu-aarch64"); arm != nullptr && !qemu.empty()) {
    for (const auto& [cpu, target] : {std::pair{"cortex-a72", "NEON"},
                                      std::pair{"max,sve-default-vector-length=16", "SVE2_128"},
                                      std::pair{"max,sve-default-vector-length=32", "SVE_256"}}) {
      machines.push_back({{qemu, "-cpu", cpu, arm}, target});
    }
  }
  const char* windows = std::getenv("LANEWISE_WINDOWS_PROGRAM");
  if (const std::string wine = FindInPath("wine"); windows != nullptr && !wine.empty()) {
    machines.push_back({{wine, windows}, lanewise::kernels::TargetName()});
  }
  return machines;
}

RunResult Run(const Machine& machine, const Words& arguments) {
  Words words = machine.program;
  words.insert(words.end(), arguments.begin(), arguments.end());
  RunOptions options;
  options.limit_seconds = 600;
  return RunProcess(words, options);
}

std::string Output(const Machine& machine, const Words& arguments) {
  const RunResult result = Run(machine, arguments);
  CAPTURE(result.messages);
  REQUIRE(result.code == 0);
  return result.output;
}

Json JsonOutput(const Machine& machine, const Words& arguments) {
  return Json::parse(Output(machine, arguments));
}

std::string SomeText() {
  std::string text;
  for (int i = 0; i < 25; ++i) {
    text += "ship " + std::to_string(i * 37 % 101) + " left the old harbor at dawn\n";
  }
  return text;
}

Words Train(const std::string& model, const std::string& data, const std::string& out) {
  return {"train", "--data",  data, "--out",     out, "--model",      model, "--tokenizer",
          "char",  "--steps", "4",  "--layers",  "2", "--dim",        "24",  "--heads",
          "3",     "--ctx",   "24", "--batch",   "3", "--eval-every", "2",   "--save-every",
          "2",     "--seed",  "3",  "--threads", "2"};
}

// Losses of steps and evaluations, in order.
std::vector<double> Losses(const std::string& run) {
  std::vector<double> losses;
  std::istringstream lines(ReadWhole(run + "/log.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const Json record = Json::parse(line);
    for (const char* field : {"loss", "val_loss"}) {
      if (record.contains(field)) losses.push_back(record[field].get<double>());
    }
  }
  return losses;
}

void CheckSame(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CAPTURE(i);
    CHECK(std::abs(a[i] - b[i]) <= kTolerance);
  }
}

// Both machines read the run: the same losses over a text, the same words.
void CheckReadAlike(const Machine& a, const Machine& b, const std::string& run,
                    const std::string& data) {
  CAPTURE(run);
  const Words eval = {"eval", run, "--data", data, "--json", "--threads", "2"};
  const Json eval_a = JsonOutput(a, eval), eval_b = JsonOutput(b, eval);
  CHECK(std::abs(eval_a["cross_entropy"].get<double>() - eval_b["cross_entropy"].get<double>()) <=
        kTolerance);
  const Words generate = {"generate", run, "--prompt", "ship ", "--tokens", "40", "--temp", "0"};
  const std::string text = Output(a, generate);
  CHECK(text.size() > 20);
  CHECK(text == Output(b, generate));
}

}  // namespace

TEST_CASE("each machine chooses its target, and says so") {
  const std::vector<Machine> machines = OtherMachines();
  if (machines.empty()) SkipAll("no QEMU here; install qemu-user");
  for (const Machine& machine : machines) {
    CAPTURE(machine.target);
    if (kNative) continue;
    const Json info = JsonOutput(machine, {"info", "--machine", "--json", "--threads", "2"});
    CHECK(info["simd_target"] == machine.target);
    CHECK(info["dtype"] == "float32");
    CHECK(info["threads"] == 2);
    const std::string text = Output(machine, {"info", "--machine"});
    for (const std::string& part :
         {machine.target, std::string("float32"), std::string("Threads")}) {
      CHECK(text.find(part) != std::string::npos);
    }
  }
}

TEST_CASE("a model goes from machine to machine") {
  if (kNative) return;
  const TemporaryFolder folder;
  const std::string data = folder.Write("text.txt", SomeText());
  for (const std::string model : {"slot_rnn", "llama"}) {
    const std::string here = folder / (model + "-here");
    Output(Here(), Train(model, data, here));
    for (const Machine& machine : OtherMachines()) {
      if (!machine.trains) continue;
      CAPTURE(model);
      CAPTURE(machine.target);
      const std::string there = folder / (model + "-" + machine.target);
      Output(machine, Train(model, data, there));
      CheckSame(Losses(here), Losses(there));
      CheckReadAlike(Here(), machine, here, data);
      CheckReadAlike(Here(), machine, there, data);

      // Each goes on with the other's training.
      const std::string moved = there + "-moved";
      std::filesystem::copy(here, moved, std::filesystem::copy_options::recursive);
      const Words more = {"--steps", "6", "--threads", "2"};
      for (const auto& [runner, run] : {std::pair{Here(), there}, std::pair{machine, moved}}) {
        Words resume = {"train", "--resume", run};
        resume.insert(resume.end(), more.begin(), more.end());
        Output(runner, resume);
      }
      CheckSame(Losses(there), Losses(moved));
    }
  }
}

TEST_CASE("a native build says on an older CPU that it is one") {
  const std::string qemu = X86Emulator();
  if (qemu.empty()) return;
  Words programs = {LANEWISE_BINARY_DIR "/tests/native_program"};
  if (kNative) programs.push_back(Here().program[0]);
  for (const std::string& program : programs) {
    CAPTURE(program);
    const RunResult old = RunProcess({qemu, "-cpu", "Nehalem", program});
    CAPTURE(old.messages);
    CHECK(old.code == 2);
    CHECK(old.output.empty());
    CHECK(old.messages.find("error: this is a native build for a CPU with ") != std::string::npos);
  }
  CHECK(RunProcess({qemu, "-cpu", "Haswell", programs[0]}).output == "the sum is 14\n");
}
