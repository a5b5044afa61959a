// The program's three streams: data to stdout, messages and progress to stderr, lines from stdin.
#ifndef LANEWISE_APPS_TERMINAL_H_
#define LANEWISE_APPS_TERMINAL_H_

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/json.h"

namespace lanewise::apps {

// Writing to a pipe that nobody reads any more: the program ends without a word.
struct PipeClosed {};

// Writes and flushes. PipeClosed, or IoError ("write standard output: No space left on device").
void WriteOutput(std::string_view bytes);
// A document and a newline, in one line with indent -1. Bytes that are not UTF-8 become U+FFFD.
void WriteJson(const model::Json& document, int indent = 2);

// All of stdin, or the next line of it without its newline; nothing at its end or when a signal
// asks for a stop.
std::string ReadInput();
std::optional<std::string> ReadInputLine();
bool InputIsTerminal();

bool MessagesAreOnTerminal();  // stderr
// Whether stderr may have color: a terminal, no NO_COLOR, TERM not dumb.
bool ColorAllowed();
size_t TerminalColumns();  // of stderr; 80 where unknown

// Message lines and, on a terminal, one line of progress below them. Never throws: a training does
// not end because nobody reads its messages.
class Messages {
 public:
  // level 0: errors only (--quiet), 1: everything.
  void set_quiet(bool quiet) { quiet_ = quiet; }
  bool quiet() const { return quiet_; }

  void Line(std::string_view line);    // not with --quiet
  void Always(std::string_view line);  // "error: …"
  void Error(std::string_view message);
  void Prompt(std::string_view text);  // without a newline

  // Whether there is a progress line at all.
  bool live() const { return !quiet_ && MessagesAreOnTerminal(); }
  // Shows the fields that fit, the most important first; at most ten times a second unless `now`.
  void Progress(const std::vector<std::string>& fields, bool now = false);
  void ClearProgress();

 private:
  size_t shown_ = 0;  // columns of the progress line on the screen
  bool quiet_ = false;
  std::chrono::steady_clock::time_point last_{};
};

Messages& Stderr();

// Of work of which the share that is done is known.
class TimeLeft {
 public:
  // "1m 20s left"; empty in the first second. Starts anew when `done` becomes less.
  std::string At(double done);

 private:
  std::chrono::steady_clock::time_point begin_{};
  double begin_done_ = 0;
  double last_done_ = 2;
};

}  // namespace lanewise::apps

#endif  // LANEWISE_APPS_TERMINAL_H_
