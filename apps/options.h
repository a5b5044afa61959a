// The options of one subcommand: declared once, for parsing (CLI11), help, environment and config
// files. Precedence: command line, then LANEWISE_<OPTION> in the environment, then --config FILE,
// then default.
#ifndef LANEWISE_APPS_OPTIONS_H_
#define LANEWISE_APPS_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/file.h"
#include "model/json.h"

namespace CLI {  // NOLINT(readability-identifier-naming)
class App;
class Option;
}  // namespace CLI

namespace lanewise::apps {

enum class Source { kDefault, kConfig, kEnvironment, kCommandLine };

// A range of numbers as messages spell it.
struct Range {
  double lowest = -std::numeric_limits<double>::infinity();
  double highest = std::numeric_limits<double>::infinity();
  bool above_lowest = false;   // the lowest value itself is not allowed
  bool checked_later = false;  // by whom the value is for: any number is taken here
};

struct Option {
  std::string name;   // "lr"; a positional argument: "MODEL"
  std::string value;  // "RATE"; empty for a flag
  std::string help;
  std::string default_text;  // empty: not shown
  std::string group;
  std::string exclusive;  // of the options with the same name here at most one may be given
  bool positional = false;
  bool list = false;  // may be given several times
  bool required = false;
  bool only_command_line = false;
  std::function<void(const std::string& text)> assign;  // throws UsageError
  std::function<void()> clear;                          // lists: forget what a lower source said

  // Filled while parsing.
  CLI::Option* parsed = nullptr;
  std::vector<std::string> raw;
  Source source = Source::kDefault;
  std::vector<std::string> texts;  // what was assigned
};

class Options {
 public:
  explicit Options(CLI::App& app);
  ~Options();

  // The following options belong to this heading of the help.
  void Group(std::string heading) { group_ = std::move(heading); }
  // Declared options go on in the same exclusive set until it is ended with "".
  void Exclusive(std::string set) { exclusive_ = std::move(set); }

  Option& Integer(const std::string& name, std::string value, int64_t* out, int64_t lowest,
                  int64_t highest, std::string help);
  Option& Integer(const std::string& name, std::string value, std::optional<int64_t>* out,
                  int64_t lowest, int64_t highest, std::string help);
  Option& Unsigned(const std::string& name, std::string value, uint64_t* out, std::string help);
  Option& Number(const std::string& name, std::string value, double* out, Range range,
                 std::string help);
  Option& Number(const std::string& name, std::string value, std::optional<double>* out,
                 Range range, std::string help);
  Option& Text(const std::string& name, std::string value, std::string* out, std::string help);
  // The help names the choices; another value is refused with the nearest of them.
  Option& Choice(const std::string& name, std::string value, std::string* out,
                 const std::vector<std::string>& choices, std::string help);
  Option& List(const std::string& name, std::string value, std::vector<std::string>* out,
               bool greedy, std::string help);
  Option& Flag(const std::string& name, bool* out, std::string help);
  // --name and --no-name.
  Option& Switch(const std::string& name, std::optional<bool>* out, std::string help);
  Option& Positional(const std::string& name, std::string* out, std::string help,
                     bool required = true);
  Option& Custom(const std::string& name, std::string value, std::string help,
                 std::function<void(const std::string&)> assign);
  // --config FILE, read by Resolve.
  void ConfigFile();

  // After CLI11 has parsed: assigns every option from its most important source. UsageError for
  // wrong values, missing arguments and options that exclude each other.
  void Resolve(model::FileSystem& files);

  bool Given(std::string_view name) const { return Find(name).source != Source::kDefault; }
  bool Has(std::string_view name) const { return Find(name).name == name; }
  const Option& Find(std::string_view name) const;
  // Where the options that this message names, or whose path it begins with, were given, if not on
  // the command line:
  // " (--lr is set by the environment variable LANEWISE_LR)"; else empty.
  std::string SourcesOf(const std::string& message) const;
  const std::vector<std::unique_ptr<Option>>& all() const { return options_; }

 private:
  Option& Add(Option option);
  void AddText(Option& option);
  void FromCommandLine(Option& option);
  void FromEnvironment(Option& option);
  void FromConfig(model::FileSystem& files);
  Option* FindForConfig(std::string_view name) const;
  [[noreturn]] void ThrowUnknownKey(const std::string& key, const std::string& name,
                                    const std::string& where) const;
  void FromConfigObject(const model::Json& object, const std::string& where, bool ignore_unknown);
  void Assign(Option& option, Source source, const std::vector<std::string>& texts);
  void CheckExclusive();

  CLI::App& app_;
  std::string group_ = "Options";
  std::string exclusive_;
  std::string config_path_;
  std::vector<std::unique_ptr<Option>> options_;
};

// "LANEWISE_EVAL_EVERY" for "eval-every".
std::string EnvironmentName(std::string_view option);

// The candidate that `text` is most likely a misspelling of; empty when none is near.
std::string Nearest(std::string text, const std::vector<std::string>& candidates);
// The same for an option's name; knows what other programs call it, too: "learning-rate" for "lr".
std::string NearestOption(std::string name, const std::vector<std::string>& candidates);

}  // namespace lanewise::apps

#endif  // LANEWISE_APPS_OPTIONS_H_
