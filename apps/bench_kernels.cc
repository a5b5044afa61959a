// lanewise bench kernels: the project's Google Benchmarks, inside the program.
#ifdef LANEWISE_HAS_KERNEL_BENCHES

#include <benchmark/benchmark.h>

#include <cctype>
#include <cstddef>
#include <string>
#include <vector>

#include "apps/command.h"
#include "apps/terminal.h"
#include "kernels/targets.h"
#include "model/error.h"
#include "runtime/machine.h"

namespace lanewise::apps {

namespace {

// The regular expression for any case: Google Benchmark's is for one. What stands in [] stays.
std::string AnyCase(const std::string& filter) {
  std::string result;
  bool in_brackets = false;
  for (size_t i = 0; i < filter.size(); ++i) {
    const char c = filter[i];
    const auto letter = static_cast<unsigned char>(c);
    if (c == '\\' && i + 1 < filter.size()) {
      result += {c, filter[++i]};
    } else if (in_brackets || std::isalpha(letter) == 0) {
      if (c == '[' || c == ']') in_brackets = c == '[';
      result += c;
    } else {
      result += {'[', static_cast<char>(std::tolower(letter)),
                 static_cast<char>(std::toupper(letter)), ']'};
    }
  }
  return result;
}

class BenchKernelsCommand : public Command {
 public:
  std::string name() const override { return "bench kernels"; }
  std::string summary() const override { return "measure the kernels' speed"; }
  std::string usage() const override { return "[FILTER] [OPTIONS]"; }
  std::string description() const override {
    return "Runs the benchmarks whose names match the regular expression FILTER in any case, "
           "all of them without one. Figures of a machine that has other work to do mean little.";
  }
  std::vector<std::string> examples() const override {
    return {"bench kernels matmul", "bench kernels 'softmax.*' --json"};
  }

  void Declare(Options& options) override {
    options.Positional("FILTER", &filter_, "regular expression", /*required=*/false);
    options.Number("min-time", "SECONDS", &min_time_, {0.001, 600, false},
                   "for each benchmark, at least");
    options.Integer("repetitions", "N", &repetitions_, 1, 1000,
                    "repeat each benchmark and report median and deviation");
    options.Flag("list", &list_, "print the names only");
    common_.Declare(options, /*json=*/true, /*profile=*/false);
  }

  int Run(model::FileSystem& files, const Options& /*options*/) override {
    common_.Apply(files);
    std::vector<std::string> words = {
        "lanewise", "--benchmark_min_time=" + std::to_string(min_time_),
        "--benchmark_repetitions=" + std::to_string(repetitions_),
        std::string("--benchmark_list_tests=") + (list_ ? "true" : "false"),
        std::string("--benchmark_format=") + (common_.json() ? "json" : "console")};
    if (!filter_.empty()) words.push_back("--benchmark_filter=" + AnyCase(filter_));
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    int count = static_cast<int>(arguments.size());
    const runtime::MachineInfo machine = runtime::DescribeMachine();
    benchmark::AddCustomContext("cpu", machine.cpu);
    benchmark::AddCustomContext("simd_target", kernels::TargetName());
    benchmark::AddCustomContext("version", VersionText());
    benchmark::Initialize(&count, arguments.data());
    if (!common_.json() && !list_) {
      Stderr().Line(machine.cpu + ", " + kernels::TargetName());
    }
    if (benchmark::RunSpecifiedBenchmarks() == 0 && !filter_.empty()) {
      throw model::UsageError("no benchmark matches '" + filter_ +
                              "'; `lanewise bench kernels --list` has their names");
    }
    return 0;
  }

 private:
  std::string filter_;
  double min_time_ = 0.2;
  int64_t repetitions_ = 1;
  bool list_ = false;
  CommonOptions common_;
};

}  // namespace

std::unique_ptr<Command> MakeBenchKernelsCommand() {
  return std::make_unique<BenchKernelsCommand>();
}

}  // namespace lanewise::apps

#endif  // LANEWISE_HAS_KERNEL_BENCHES
