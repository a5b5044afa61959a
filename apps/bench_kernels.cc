// lanewise bench kernels: the project's Google Benchmarks, inside the program.
#ifdef LANEWISE_HAS_KERNEL_BENCHES

#include <benchmark/benchmark.h>

#include <ostream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "apps/command.h"
#include "apps/signals.h"
#include "apps/terminal.h"
#include "kernels/targets.h"
#include "model/error.h"
#include "runtime/machine.h"

namespace lanewise::apps {

namespace {

void InitializeBenchmarks(std::vector<std::string> words) {
  static char program[] = "lanewise";  // Google Benchmark keeps it
  std::vector<char*> arguments = {program};
  for (std::string& word : words) arguments.push_back(word.data());
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
}

// Google Benchmark only prints them.
std::vector<std::string> AllNames() {
  InitializeBenchmarks({"--benchmark_list_tests=true"});
  std::stringstream text;
  benchmark::ConsoleReporter reporter;
  reporter.SetOutputStream(&text);
  benchmark::RunSpecifiedBenchmarks(&reporter, ".");
  std::vector<std::string> names;
  for (std::string line; std::getline(text, line);) names.push_back(line);
  return names;
}

// UsageError for what is no regular expression, or matches none.
std::vector<std::string> NamesThatMatch(const std::string& filter) {
  std::vector<std::string> names = AllNames();
  try {
    const std::regex expression(filter, std::regex::icase);
    std::erase_if(names, [&](const auto& name) { return !std::regex_search(name, expression); });
  } catch (const std::regex_error& error) {
    throw model::UsageError("FILTER '" + filter + "' is no regular expression: " + error.what());
  }
  if (names.empty()) {
    throw model::UsageError("no benchmark matches '" + filter +
                            "'; `lanewise bench kernels --list` has their names");
  }
  return names;
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
    const std::vector<std::string> names = NamesThatMatch(filter_);
    std::string lines, any;
    for (const std::string& name : names) {
      lines += name + "\n";
      any += (any.empty() ? "" : "|") + name;  // letters, digits and _ / : only
    }
    if (list_) {
      common_.json() ? WriteJson(names) : WriteOutput(lines);
      return 0;
    }
    InitializeBenchmarks(
        {"--benchmark_list_tests=false", "--benchmark_min_time=" + std::to_string(min_time_),
         "--benchmark_repetitions=" + std::to_string(repetitions_),
         std::string("--benchmark_format=") + (common_.json() ? "json" : "console")});
    const runtime::MachineInfo machine = runtime::DescribeMachine();
    benchmark::AddCustomContext("cpu", machine.cpu);
    benchmark::AddCustomContext("simd_target", kernels::TargetName());
    benchmark::AddCustomContext("version", VersionText());
    if (!common_.json()) Stderr().Line(machine.cpu + ", " + kernels::TargetName());
    benchmark::BenchmarkReporter* reporter = benchmark::CreateDefaultDisplayReporter();
    std::ostream nowhere(nullptr);
    if (Stderr().quiet()) reporter->SetErrorStream(&nowhere);
    const EndOnSignal measuring;
    benchmark::RunSpecifiedBenchmarks(reporter, "^(" + any + ")$");
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
