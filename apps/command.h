// A subcommand of the program, and what most of them share.
#ifndef LANEWISE_APPS_COMMAND_H_
#define LANEWISE_APPS_COMMAND_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/options.h"
#include "model/file.h"
#include "runtime/parallel.h"
#include "runtime/profiler.h"

namespace lanewise::apps {

class Command {
 public:
  virtual ~Command() = default;
  virtual std::string name() const = 0;     // "train", or "bench kernels"
  virtual std::string summary() const = 0;  // one line of the overview
  virtual std::string usage() const = 0;    // what follows the name: "MODEL --data FILE [OPTIONS]"
  virtual std::string description() const = 0;            // paragraphs of the help
  virtual std::vector<std::string> examples() const = 0;  // without "lanewise "
  virtual void Declare(Options& options) = 0;
  // Returns the exit code; errors are exceptions.
  virtual int Run(model::FileSystem& files, const Options& options) = 0;
};

std::unique_ptr<Command> MakeTrainCommand();
std::unique_ptr<Command> MakeGenerateCommand();
std::unique_ptr<Command> MakeEvalCommand();
std::unique_ptr<Command> MakePlanCommand();
std::unique_ptr<Command> MakeInfoCommand();
std::unique_ptr<Command> MakeConvertCommand();
std::unique_ptr<Command> MakeGradientsCommand();
std::unique_ptr<Command> MakeBenchKernelsCommand();
std::vector<std::unique_ptr<Command>> MakeBenchModelCommands();  // bench train, prefill, decode

// In the order of the overview.
std::vector<std::unique_ptr<Command>> AllCommands();

// "lanewise 0.1.0".
std::string VersionText();

// Says on stderr what --dtype bf16 means on this machine; nothing for float32.
void SayDtype(const std::string& dtype);
// "float32", or for "bf16" what computes it here: "bf16 (AMX tiles)".
std::string DescribeDtype(const std::string& dtype);
// Says on stderr where --dtype bf16 would be faster than float32.
void SuggestBf16();

// The help of one command, of all, and where to find them.
std::string CommandHelp(const Command& command, const Options& options);
std::string OverviewHelp(const std::vector<const Command*>& commands);

// UsageError where a file that is written at the end cannot be: its folder is missing, it is no
// regular file, or it holds something else than `kind`, which would be lost. "" is no file.
void CheckOutputFile(model::FileSystem& files, const std::string& path, const std::string& kind,
                     const std::function<bool()>& is_of_kind);

// --dtype of a command that runs a model.
void DeclareDtype(Options& options, std::string* dtype);

// --threads, --isa, --bf16-unit, --quiet and, where they mean something, --json and --profile.
class CommonOptions {
 public:
  void Declare(Options& options, bool json, bool profile);
  // Applies --quiet, --isa and --bf16-unit. UsageError where the CPU lacks the instructions, or
  // --profile cannot be written.
  void Apply(model::FileSystem& files) const;
  std::unique_ptr<runtime::Scheduler> MakeScheduler() const;
  bool json() const { return json_; }

  // The profiler that --profile asks for, or nullptr.
  runtime::Profiler* profiler();
  // Writes what it recorded: the trace file, or the table to stderr.
  void WriteProfile(model::FileSystem& files, double peak_gflops) const;

 private:
  int64_t threads_ = 0;
  std::string isa_ = "auto";
  std::string bf16_unit_ = "auto";
  bool quiet_ = false;
  bool json_ = false;
  std::string profile_;
  std::unique_ptr<runtime::Profiler> profiler_;
};

}  // namespace lanewise::apps

#endif  // LANEWISE_APPS_COMMAND_H_
