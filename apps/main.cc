// The `lanewise` program: finds the subcommand, and turns every error into a message and an exit
// code.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <new>
#include <optional>

#include "apps/command.h"
#include "apps/console.h"
#include "apps/signals.h"
#include "apps/terminal.h"
#include "model/error.h"
#include "model/nearest.h"
#include "runtime/arena.h"
#include "runtime/check.h"

namespace lanewise::apps {

namespace {

using model::UsageError;

constexpr int kInternalError = 1;
constexpr int kOutOfMemory = 6;

struct Entry {
  std::unique_ptr<Command> command;
  CLI::App* app = nullptr;
  CLI::Option* help = nullptr;
  std::unique_ptr<Options> options;
};

class Program {
 public:
  Program();
  int Run(std::vector<std::string> words);
  // Where the help for what was tried is: "lanewise train --help".
  const std::string& hint() const { return hint_; }

 private:
  CLI::App* NewApp(const std::string& name);
  // The command that was named, or nullptr.
  Entry* Chosen();
  std::string Overview() const;
  [[noreturn]] void ThrowIncomplete(const std::string& group,
                                    const std::vector<std::string>& words) const;
  [[noreturn]] void ThrowUnknownCommand(const std::string& word) const;
  [[noreturn]] static void ThrowUnknownWord(const Entry& entry, const std::string& word,
                                            bool is_argument);
  void NoteUnknownVariables() const;

  CLI::App app_{"Lanewise", "lanewise"};
  CLI::Option* help_;
  CLI::Option* version_;
  std::map<std::string, CLI::App*> groups_;  // "bench" of "bench kernels"
  std::vector<Entry> entries_;
  std::string hint_ = "lanewise --help";
};

void Prepare(CLI::App& app) {
  app.set_help_flag();
  app.allow_extras();
  app.allow_windows_style_options(false);  // a word that begins with / is a path
  app.require_subcommand(0, 1);
}

// A command of two words is a subcommand of the first.
CLI::App* Program::NewApp(const std::string& name) {
  const size_t space = name.find(' ');
  CLI::App* parent = &app_;
  if (space != std::string::npos) {
    CLI::App*& group = groups_[name.substr(0, space)];
    if (group == nullptr) {
      group = app_.add_subcommand(name.substr(0, space));
      Prepare(*group);
      group->add_flag("-h,--help");
    }
    parent = group;
  }
  CLI::App* app =
      parent->add_subcommand(space == std::string::npos ? name : name.substr(space + 1));
  Prepare(*app);
  return app;
}

Program::Program() {
  Prepare(app_);
  help_ = app_.add_flag("-h,--help");
  version_ = app_.add_flag("-V,--version");
  for (auto& command : AllCommands()) {
    Entry entry;
    entry.app = NewApp(command->name());
    entry.help = entry.app->add_flag("-h,--help");
    entry.options = std::make_unique<Options>(*entry.app);
    command->Declare(*entry.options);
    entry.command = std::move(command);
    entries_.push_back(std::move(entry));
  }
}

Entry* Program::Chosen() {
  for (Entry& entry : entries_) {
    if (entry.app->parsed()) return &entry;
  }
  return nullptr;
}

void Program::ThrowUnknownCommand(const std::string& word) const {
  std::vector<std::string> names;
  for (const Entry& entry : entries_) names.push_back(entry.command->name());
  if (word.starts_with('-')) throw UsageError("'" + word + "' needs a command before it");
  const std::string nearest = Nearest(word, names);
  throw UsageError("there is no command '" + word + "'" +
                   (nearest.empty() ? "" : "; did you mean " + nearest + "?"));
}

void Program::ThrowIncomplete(const std::string& group,
                              const std::vector<std::string>& words) const {
  std::string all;
  std::vector<std::string> names;
  for (const Entry& entry : entries_) {
    const std::string name = entry.command->name();
    if (!name.starts_with(group + " ")) continue;
    names.push_back(name.substr(group.size() + 1));
    all += (all.empty() ? "" : ", ") + names.back();
  }
  if (words.empty()) throw UsageError(group + " needs one of these words after it: " + all);
  const std::string nearest = Nearest(words[0], names);
  throw UsageError(group + " has no '" + words[0] + "'; it has " + all +
                   (nearest.empty() ? "" : " (did you mean " + nearest + "?)"));
}

void Program::ThrowUnknownWord(const Entry& entry, const std::string& word, bool is_argument) {
  const Options& options = *entry.options;
  if (is_argument || !word.starts_with('-')) {
    std::string hint;
    if (options.Has("from") && options.Has("model")) {
      hint = "; a model's kind is given with --model, the sizes of one that exists with --from";
    } else if (options.Has("prompt")) {
      hint = "; a text is given with --prompt";
    }
    throw UsageError("'" + word + "' is one argument too many for " + entry.command->name() + hint);
  }
  std::string name = word.substr(0, word.find('='));
  name.erase(0, name.find_first_not_of('-'));
  std::vector<std::string> names = {"help"};
  for (const auto& option : entry.options->all()) {
    if (!option->positional) names.push_back(option->name);
  }
  std::string hint = NearestOption(name, names);
  if (!hint.empty()) hint = "; did you mean --" + hint + "?";
  if (entry.options->Has("MODEL") && (name == "m" || name == "model")) {
    hint = "; the model stands alone: lanewise " + entry.command->name() + " MODEL";
  }
  throw UsageError(entry.command->name() + " has no option " + word.substr(0, word.find('=')) +
                   hint);
}

// A variable that no command reads is a mistake that nothing else would show.
void Program::NoteUnknownVariables() const {
  std::vector<std::string> known;
  for (const Entry& entry : entries_) {
    for (const auto& option : entry.options->all()) {
      const bool read = !option->only_command_line || option->name == "config";
      if (read) known.push_back(EnvironmentName(option->name));
    }
  }
  for (const std::string& name : EnvironmentNames()) {
    if (!name.starts_with(EnvironmentName(""))) continue;
    if (std::ranges::find(known, name) != known.end()) continue;
    const std::string nearest = model::NearestName(name, known);
    Stderr().Line("Note: " + name + " is set, but no option reads it" +
                  (nearest.empty() ? "" : "; did you mean " + nearest + "?"));
  }
}

// CLI11's "--steps: 1 required TEXT missing".
[[noreturn]] void ThrowParseError(const CLI::ParseError& error) {
  const std::string text = error.what();
  const size_t colon = text.find(':');
  if (error.get_name() == "ArgumentMismatch" && colon != std::string::npos) {
    throw UsageError(text.substr(0, colon) + " needs a value");
  }
  throw UsageError(text);
}

std::string Program::Overview() const {
  std::vector<const Command*> commands;
  for (const Entry& entry : entries_) commands.push_back(entry.command.get());
  return OverviewHelp(commands);
}

int Program::Run(std::vector<std::string> words) {
  if (!words.empty() && words[0] == "help") {  // lanewise help train
    words.erase(words.begin());
    words.push_back("--help");
  }
  std::reverse(words.begin(), words.end());
  std::optional<CLI::ParseError> failure;
  try {
    app_.parse(words);
  } catch (const CLI::ParseError& error) {
    failure = error;
  }
  Entry* entry = Chosen();
  if (entry != nullptr) {
    hint_ = "lanewise " + entry->command->name() + " --help";
    if (entry->help->count() > 0) {
      WriteOutput(CommandHelp(*entry->command, *entry->options));
      return 0;
    }
  }
  if (failure) ThrowParseError(*failure);
  std::vector<std::string> unknown = app_.remaining(/*recurse=*/true);
  if (entry == nullptr) {
    if (version_->count() > 0) {
      WriteOutput(VersionText() + "\n");
      return 0;
    }
    const bool asked = help_->count() > 0;
    for (const auto& [name, group] : groups_) {
      if (group->parsed() && !asked && group->count("--help") == 0) ThrowIncomplete(name, unknown);
    }
    if (!unknown.empty()) ThrowUnknownCommand(unknown[0]);
    WriteOutput(Overview());
    return 0;
  }
  const bool marked = std::erase(unknown, "--") > 0;  // arguments follow, whatever they look like
  if (!unknown.empty()) ThrowUnknownWord(*entry, unknown[0], marked);
  const std::unique_ptr<model::FileSystem> files = model::MakeSystemFiles();
  entry->options->Resolve(*files);
  if (!entry->options->Given("quiet")) NoteUnknownVariables();
  try {
    return entry->command->Run(*files, *entry->options);
  } catch (const UsageError& error) {
    throw UsageError(error.what() + entry->options->SourcesOf(error.what()));
  } catch (const model::InputError& error) {
    throw model::InputError(error.what() + entry->options->SourcesOf(error.what()));
  } catch (const model::IoError& error) {
    throw model::IoError(error.what() + entry->options->SourcesOf(error.what()),
                         error.error_number());
  }
}

void ReportNoMemory() {
  try {
    Stderr().Error("out of memory: this program has used up to " +
                   model::FormatBytes(runtime::PeakResidentBytes()) + ", and " +
                   model::FormatBytes(runtime::AvailableMemoryBytes()) + " of the machine's " +
                   model::FormatBytes(runtime::TotalMemoryBytes()) +
                   " are left; close other programs, or use a smaller model, --batch or --ctx");
  } catch (const std::bad_alloc&) {
    std::fputs("error: out of memory; close other programs\n", stderr);
  }
}

const std::terminate_handler default_terminate = std::get_terminate();

// Memory may also be refused to a destructor, which must not throw: those of the JSON library
// allocate. Nor may oneTBB where it starts threads.
void HandleTerminate() {
  try {
    if (const std::exception_ptr error = std::current_exception()) std::rethrow_exception(error);
  } catch (const std::bad_alloc&) {
    ReportNoMemory();
    std::_Exit(kOutOfMemory);
  } catch (const std::runtime_error& error) {
    if (std::string_view(error.what()).find("pthread_create") != std::string_view::npos) {
      Stderr().Error("the system starts no more threads for this program (" +
                     std::string(error.what()) +
                     "); use fewer --threads, or raise the limits of processes and memory "
                     "(ulimit -u, ulimit -v)");
      std::_Exit(kOutOfMemory);
    }
  } catch (...) {
    // The default handler says what it was.
  }
  default_terminate();
}

// Runs the program; every error ends here.
int Main(int argc, char** argv) {
  std::set_terminate(HandleTerminate);
  OpenStreams();
  InstallSignalHandlers();
  try {
    Program program;
    try {
      return program.Run(Arguments(argc, argv));
    } catch (const UsageError& error) {
      Stderr().Error(error.what());
      Stderr().Always("See `" + program.hint() + "`.");
      return error.exit_code();
    }
  } catch (const Stopped&) {
    Stderr().Line(std::string("Stopped by ") + StopSignalName());
    return SignalExitCode();
  } catch (const PipeClosed&) {
    return 141;  // as a program that SIGPIPE ended
  } catch (const model::Error& error) {
    Stderr().Error(error.what());
    return error.exit_code();
  } catch (const runtime::OutOfMemory& error) {
    Stderr().Error(error.what());
    return kOutOfMemory;
  } catch (const std::bad_alloc&) {
    ReportNoMemory();
    return kOutOfMemory;
  } catch (const runtime::CheckError& error) {
    Stderr().Error(std::string(error.what()) + "\nThis is a defect of Lanewise; please report it.");
    return kInternalError;
  } catch (const std::exception& error) {
    Stderr().Error(std::string("unexpected: ") + error.what() +
                   "\nThis is a defect of Lanewise; please report it.");
    return kInternalError;
  }
}

}  // namespace
}  // namespace lanewise::apps

int main(int argc, char** argv) { return lanewise::apps::Main(argc, argv); }
