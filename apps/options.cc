#include "apps/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "apps/console.h"
#include "apps/format.h"
#include "model/error.h"

namespace lanewise::apps {

namespace {

using model::Json;
using model::UsageError;

std::string Quoted(const std::string& text) { return "'" + text + "'"; }

std::string Spelled(const Option& option) {
  return option.positional ? option.name : "--" + option.name;
}

std::string RangeText(const Range& range) {
  const bool low = std::isfinite(range.lowest), high = std::isfinite(range.highest);
  const std::string lowest = FormatShort(range.lowest), highest = FormatShort(range.highest);
  if (low && high) {
    return range.above_lowest ? " above " + lowest + " and at most " + highest
                              : " from " + lowest + " to " + highest;
  }
  if (low) return range.above_lowest ? " above " + lowest : " of at least " + lowest;
  if (high) return " of at most " + highest;
  return "";
}

std::optional<double> ParseNumber(const std::string& text) {
  double value = 0;
  const char* begin = text.data();
  const char* end = begin + text.size();
  if (begin != end && *begin == '+') ++begin;
  const auto [stop, error] = std::from_chars(begin, end, value);
  if (begin == end || stop != end || error != std::errc()) return std::nullopt;
  return value;
}

// Also 1e6, as scripts write it. What is too large becomes the largest: the range that is asked for
// ends below.
std::optional<int64_t> ParseInteger(const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (!text.empty() && stop == end && error == std::errc()) return value;
  const std::optional<double> number = ParseNumber(text);
  if (!number || !std::isfinite(*number) || *number != std::trunc(*number)) return std::nullopt;
  if (*number >= 0x1p63) return std::numeric_limits<int64_t>::max();
  if (*number < -0x1p63) return std::numeric_limits<int64_t>::min();
  return static_cast<int64_t>(*number);
}

int64_t IntegerIn(const std::string& name, const std::string& text, int64_t lowest,
                  int64_t highest) {
  const std::optional<int64_t> value = ParseInteger(text);
  if (!value || *value < lowest || *value > highest) {
    const bool any = lowest == std::numeric_limits<int64_t>::min();  // checked later
    throw UsageError(
        "--" + name + " must be an integer" +
        (any ? "" : " from " + std::to_string(lowest) + " to " + std::to_string(highest)) +
        ", not " + Quoted(text));
  }
  return *value;
}

double NumberIn(const std::string& name, const std::string& text, const Range& range) {
  const std::optional<double> value = ParseNumber(text);
  if (value && range.checked_later) return *value;
  const bool low = value && (range.above_lowest ? *value > range.lowest : *value >= range.lowest);
  if (!low || !(*value <= range.highest) || !std::isfinite(*value)) {
    throw UsageError("--" + name + " must be a number" + RangeText(range) + ", not " +
                     Quoted(text));
  }
  return *value;
}

bool BoolOf(const std::string& name, const std::string& text) {
  if (text == "1" || text == "true" || text == "yes" || text == "on") return true;
  if (text == "0" || text == "false" || text == "no" || text == "off" || text.empty()) return false;
  throw UsageError("--" + name + " must be true or false, not " + Quoted(text));
}

// How an option's value is found in JSON: as the texts that the command line would have.
std::vector<std::string> TextsOf(const Json& value, const std::string& where,
                                 const std::string& name) {
  if (value.is_string()) return {value.get<std::string>()};
  if (value.is_number() || value.is_boolean()) return {value.dump()};
  if (value.is_array()) {
    std::vector<std::string> texts;
    for (const Json& element : value) {
      for (std::string& text : TextsOf(element, where, name)) texts.push_back(std::move(text));
    }
    return texts;
  }
  throw UsageError(where + ": \"" + name + "\" must be a value, not an object");
}

// Whether a message is about this path: "runs/book: no such folder", "runs/book/config.json: ...".
bool IsAbout(const std::string& message, const std::string& path) {
  return !path.empty() && message.size() > path.size() && message.starts_with(path) &&
         (message[path.size()] == ':' || message[path.size()] == '/');
}

}  // namespace

std::string EnvironmentName(std::string_view option) {
  std::string name = "LANEWISE_";
  for (const char c : option) {
    if (c == '-') {
      name += '_';
    } else {
      name += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    }
  }
  return name;
}

Options::Options(CLI::App& app) : app_(app) {}
Options::~Options() = default;

Option& Options::Add(Option option) {
  option.group = group_;
  option.exclusive = exclusive_;
  options_.push_back(std::make_unique<Option>(std::move(option)));
  return *options_.back();
}

void Options::AddText(Option& option) {
  const std::string name = option.positional ? option.name : "--" + option.name;
  option.parsed = app_.add_option(name, option.raw);
  option.parsed->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)->allow_extra_args(false);
  if (option.positional) option.parsed->expected(1);
}

Option& Options::Custom(const std::string& name, std::string value, std::string help,
                        std::function<void(const std::string&)> assign) {
  Option option;
  option.name = name;
  option.value = std::move(value);
  option.help = std::move(help);
  option.assign = std::move(assign);
  Option& added = Add(std::move(option));
  AddText(added);
  return added;
}

Option& Options::Integer(const std::string& name, std::string value, int64_t* out, int64_t lowest,
                         int64_t highest, std::string help) {
  Option& option = Custom(name, std::move(value), std::move(help), [=](const std::string& text) {
    *out = IntegerIn(name, text, lowest, highest);
  });
  option.default_text = std::to_string(*out);
  return option;
}

Option& Options::Integer(const std::string& name, std::string value, std::optional<int64_t>* out,
                         int64_t lowest, int64_t highest, std::string help) {
  return Custom(name, std::move(value), std::move(help),
                [=](const std::string& text) { *out = IntegerIn(name, text, lowest, highest); });
}

Option& Options::Unsigned(const std::string& name, std::string value, uint64_t* out,
                          std::string help) {
  Option& option = Custom(name, std::move(value), std::move(help), [=](const std::string& text) {
    uint64_t parsed = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, parsed);
    if (text.empty() || stop != end || error != std::errc()) {
      throw UsageError("--" + name + " must be an integer from 0 to " +
                       std::to_string(std::numeric_limits<uint64_t>::max()) + ", not " +
                       Quoted(text));
    }
    *out = parsed;
  });
  option.default_text = std::to_string(*out);
  return option;
}

Option& Options::Number(const std::string& name, std::string value, double* out, Range range,
                        std::string help) {
  Option& option = Custom(name, std::move(value), std::move(help),
                          [=](const std::string& text) { *out = NumberIn(name, text, range); });
  option.default_text = FormatShort(*out);
  return option;
}

Option& Options::Number(const std::string& name, std::string value, std::optional<double>* out,
                        Range range, std::string help) {
  return Custom(name, std::move(value), std::move(help),
                [=](const std::string& text) { *out = NumberIn(name, text, range); });
}

Option& Options::Text(const std::string& name, std::string value, std::string* out,
                      std::string help) {
  Option& option = Custom(name, std::move(value), std::move(help),
                          [=](const std::string& text) { *out = text; });
  option.default_text = *out;
  return option;
}

Option& Options::Choice(const std::string& name, std::string value, std::string* out,
                        const std::vector<std::string>& choices, std::string help) {
  Option& option = Custom(name, std::move(value), std::move(help), [=](const std::string& text) {
    std::string all;
    for (const std::string& choice : choices) {
      if (choice == text) {
        *out = text;
        return;
      }
      all += (all.empty() ? "" : ", ") + choice;
    }
    const std::string nearest = Nearest(text, choices);
    throw UsageError("--" + name + " must be one of " + all + ", not " + Quoted(text) +
                     (nearest.empty() ? "" : "; did you mean " + nearest + "?"));
  });
  option.default_text = *out;
  return option;
}

Option& Options::List(const std::string& name, std::string value, std::vector<std::string>* out,
                      bool greedy, std::string help) {
  Option& option = Custom(name, std::move(value), std::move(help),
                          [=](const std::string& text) { out->push_back(text); });
  option.list = true;
  option.clear = [=] { out->clear(); };
  option.parsed->allow_extra_args(greedy);
  if (greedy) option.parsed->expected(1, CLI::detail::expected_max_vector_size);
  return option;
}

Option& Options::Flag(const std::string& name, bool* out, std::string help) {
  Option option;
  option.name = name;
  option.help = std::move(help);
  option.assign = [=](const std::string& text) { *out = BoolOf(name, text); };
  Option& added = Add(std::move(option));
  added.parsed = app_.add_flag("--" + added.name);
  return added;
}

Option& Options::Switch(const std::string& name, std::optional<bool>* out, std::string help) {
  Option option;
  option.name = name;
  option.help = std::move(help);
  option.assign = [=](const std::string& text) { *out = BoolOf(name, text); };
  Option& added = Add(std::move(option));
  added.parsed = app_.add_flag("--" + name + ",!--no-" + name);
  return added;
}

Option& Options::Positional(const std::string& name, std::string* out, std::string help,
                            bool required) {
  Option option;
  option.name = name;
  option.help = std::move(help);
  option.positional = true;
  option.only_command_line = true;
  option.required = required;
  option.assign = [=](const std::string& text) { *out = text; };
  Option& added = Add(std::move(option));
  added.group = "Arguments";
  AddText(added);
  return added;
}

void Options::ConfigFile() {
  Option& option = Text("config", "FILE", &config_path_,
                        "JSON object of option names and values, such as a run's config.json; "
                        "options and the environment win");
  option.only_command_line = true;
}

const Option& Options::Find(std::string_view name) const {
  for (const auto& option : options_) {
    if (option->name == name) return *option;
  }
  static const Option none;
  return none;
}

std::string Options::SourcesOf(const std::string& message) const {
  // What follows is advice, which may name other options.
  const std::string_view subject = std::string_view(message).substr(0, message.find(';'));
  std::string sources;
  for (const auto& option : options_) {
    std::string spelled = Spelled(*option);
    if (subject.find("--no-" + option->name) != std::string_view::npos) {
      spelled = "--no-" + option->name;
    }
    size_t at = subject.find(spelled);
    // --lr is not in --lr-min.
    const auto goes_on = [&](size_t end) {
      return end < subject.size() &&
             (subject[end] == '-' || std::isalnum(static_cast<unsigned char>(subject[end])) != 0);
    };
    while (at != std::string::npos && goes_on(at + spelled.size())) {
      at = subject.find(spelled, at + 1);
    }
    const auto is_about = [&](const std::string& text) { return IsAbout(message, text); };
    if (at == std::string::npos && std::ranges::none_of(option->texts, is_about)) continue;
    std::string source;
    if (option->source == Source::kEnvironment) {
      source = "the environment variable " + EnvironmentName(option->name);
    } else if (option->source == Source::kConfig) {
      source = config_path_;
    } else {
      continue;
    }
    sources += sources.empty() ? " (" : "; ";
    sources.append(spelled).append(" is set by ").append(source);
  }
  return sources.empty() ? sources : sources + ")";
}

void Options::Assign(Option& option, Source source, const std::vector<std::string>& texts) {
  if (texts.empty()) return;
  if (option.clear) option.clear();
  option.texts = option.list ? texts : std::vector<std::string>{texts.back()};
  option.source = source;
  for (const std::string& text : option.texts) option.assign(text);
}

void Options::FromCommandLine(Option& option) {
  if (option.parsed->count() == 0) return;
  Assign(option, Source::kCommandLine, option.parsed->results());
}

void Options::FromEnvironment(Option& option) {
  if (option.only_command_line || option.source == Source::kCommandLine) return;
  const std::string name = EnvironmentName(option.name);
  const std::string value = Environment(name).value_or("");
  if (value.empty()) return;
  try {
    Assign(option, Source::kEnvironment, {value});
  } catch (const UsageError& error) {
    throw UsageError(std::string(error.what()) + " (environment variable " + name + ")");
  }
}

Option* Options::FindForConfig(std::string_view name) const {
  for (const auto& option : options_) {
    if (!option->only_command_line && option->name == name) return option.get();
  }
  return nullptr;
}

void Options::ThrowUnknownKey(const std::string& key, const std::string& name,
                              const std::string& where) const {
  std::vector<std::string> names;
  for (const auto& option : options_) {
    if (!option->only_command_line) names.push_back(option->name);
  }
  const std::string nearest = Nearest(name, names);
  std::string message = where;
  message.append(": \"").append(key).append("\" is not an option");
  if (!nearest.empty()) message.append("; did you mean \"").append(nearest).append("\"?");
  throw UsageError(message);
}

void Options::FromConfigObject(const Json& object, const std::string& where, bool ignore_unknown) {
  for (const auto& [key, value] : object.items()) {
    std::string name = key;
    for (char& c : name) c = c == '_' ? '-' : c;
    Option* found = FindForConfig(name);
    if (found == nullptr && ignore_unknown) {
      if (name == "tied" && value == false) FromConfigObject({{"untied", true}}, where, true);
      continue;
    }
    if (found == nullptr) ThrowUnknownKey(key, name, where);
    if (found->source != Source::kDefault || value.is_null()) continue;
    // In a run's record: the model's sizes in an object, -1 for what is chosen while training, and
    // the steps that minutes came to.
    if (ignore_unknown && (value.is_object() || value == -1)) continue;
    if (ignore_unknown && name == "minutes" && object.contains("steps") && object["steps"] != 0)
      continue;
    try {
      Assign(*found, Source::kConfig, TextsOf(value, where, key));
    } catch (const UsageError& error) {
      throw UsageError(where + ": " + error.what());
    }
  }
}

void Options::FromConfig(model::FileSystem& files) {
  if (config_path_.empty() && Has("config")) {
    config_path_ = Environment(EnvironmentName("config")).value_or("");
  }
  if (config_path_.empty()) return;
  const Json config = model::ReadJsonFile(files, config_path_);
  if (!config.is_object()) {
    throw model::InputError(config_path_ + ": must be a JSON object of option names and values");
  }
  // A run's own config.json describes the model at its top and the training in an object.
  const auto training = config.find("training");
  if (training != config.end() && training->is_object()) {
    FromConfigObject(*training, config_path_, /*ignore_unknown=*/true);
    const auto sizes = training->find("model");
    if (sizes != training->end() && sizes->is_object()) {
      FromConfigObject(*sizes, config_path_, /*ignore_unknown=*/true);
    }
    FromConfigObject(config, config_path_, /*ignore_unknown=*/true);
    return;
  }
  FromConfigObject(config, config_path_, /*ignore_unknown=*/false);
}

// Of options that exclude each other those from the most important source count; two from the same
// source are a mistake.
void Options::CheckExclusive() {
  for (const auto& option : options_) {
    if (option->exclusive.empty() || option->source == Source::kDefault) continue;
    for (const auto& other : options_) {
      if (other == option || other->exclusive != option->exclusive) continue;
      if (other->source == option->source) {
        const std::string message =
            Spelled(*option) + " and " + Spelled(*other) + " exclude each other: give one of them";
        throw UsageError(message + SourcesOf(message));
      }
    }
  }
}

void Options::Resolve(model::FileSystem& files) {
  for (const auto& option : options_) FromCommandLine(*option);
  // An exclusive set that is settled by a more important source is closed to the others.
  const auto settled = [&](const Option& option, Source source) {
    if (option.exclusive.empty()) return false;
    for (const auto& other : options_) {
      if (other->exclusive == option.exclusive && other->source > source) return true;
    }
    return false;
  };
  for (const auto& option : options_) {
    if (!settled(*option, Source::kEnvironment)) FromEnvironment(*option);
  }
  std::vector<Option*> closed;
  for (const auto& option : options_) {
    if (option->source == Source::kDefault && settled(*option, Source::kConfig)) {
      option->source = Source::kCommandLine;  // not to be touched
      closed.push_back(option.get());
    }
  }
  FromConfig(files);
  for (Option* option : closed) option->source = Source::kDefault;
  CheckExclusive();
  for (const auto& option : options_) {
    if (option->required && option->source == Source::kDefault) {
      throw UsageError(Spelled(*option) + " is missing: " + option->help);
    }
  }
}

}  // namespace lanewise::apps
