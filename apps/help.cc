#include <algorithm>

#include "apps/command.h"
#include "apps/format.h"

namespace lanewise::apps {

namespace {

constexpr size_t kWidth = 88;
constexpr size_t kColumn = 26;

std::string Entry(const std::string& head, const std::string& text) {
  std::string out = "  " + head;
  if (out.size() + 2 > kColumn) {
    out += '\n' + std::string(kColumn, ' ');
  } else {
    out += std::string(kColumn - out.size(), ' ');
  }
  return out + Wrap(text, kColumn, kWidth) + "\n";
}

std::string OptionHead(const Option& option) {
  if (option.positional) return option.name;
  return "--" + option.name + (option.value.empty() ? "" : " " + option.value);
}

std::string OptionText(const Option& option) {
  std::string text = option.help;
  if (option.list) text += " (may be repeated)";
  if (!option.default_text.empty()) text += " (default: " + option.default_text + ")";
  return text;
}

}  // namespace

std::string CommandHelp(const Command& command, const Options& options) {
  std::string out = "lanewise " + command.name() + ": " + command.summary() + "\n\n";
  out += "Usage: lanewise " + command.name() + " " + command.usage() + "\n\n";
  out += Wrap(command.description(), 0, kWidth) + "\n";
  std::vector<std::string> groups;
  for (const auto& option : options.all()) {
    if (std::find(groups.begin(), groups.end(), option->group) == groups.end()) {
      groups.push_back(option->group);
    }
  }
  for (const std::string& group : groups) {
    out += "\n" + group + ":\n";
    for (const auto& option : options.all()) {
      if (option->group == group) out += Entry(OptionHead(*option), OptionText(*option));
    }
    if (group == groups.back()) out += Entry("--help", "print this");
  }
  const auto examples = command.examples();
  out += examples.size() == 1 ? "\nExample:\n" : "\nExamples:\n";
  for (const std::string& example : examples) out += "  lanewise " + example + "\n";
  return out;
}

std::string OverviewHelp(const std::vector<const Command*>& commands) {
  std::string out =
      "Lanewise trains small language models on CPUs, and runs them.\n\n"
      "Usage: lanewise COMMAND [OPTIONS]\n\nCommands:\n";
  for (const Command* command : commands) out += Entry(command->name(), command->summary());
  out +=
      "\nTo begin:\n"
      "  lanewise train --data book.txt --out runs/book --minutes 2\n"
      "  lanewise generate runs/book --prompt \"Once upon a time\"\n\n"
      "`lanewise COMMAND --help` has options and examples. Every option can also be set in the\n"
      "environment: LANEWISE_THREADS=4 is --threads 4.\n\n"
      "Exit codes: 0 done, 1 internal error, 2 usage, 3 bad input or corrupt file, 4 input/output\n"
      "or disk full, 5 diverged, 6 out of memory, 7 folder in use, 129/130/143 stopped by a\n"
      "signal, 141 the reader of the output has gone.\n";
  return out;
}

}  // namespace lanewise::apps
