// Runs programs as a user does: with arguments, an environment, pipes or a terminal, and signals.
#ifndef LANEWISE_TESTS_SUPPORT_PROCESS_H_
#define LANEWISE_TESTS_SUPPORT_PROCESS_H_

#include <map>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace lanewise::testing {

struct RunOptions {
  std::map<std::string, std::string> environment = {};  // beside the caller's
  std::string input = {};
  int terminal_columns = 0;  // above 0: stderr is a terminal of this width
  // Instead, all three streams are a terminal of its own, which is closed once it shows this text.
  std::string close_terminal_when = {};
  bool close_output = false;     // nobody reads stdout
  bool close_messages = false;   // nor stderr
  std::string output_path = {};  // stdout goes here, e.g. /dev/full
  // Sends `signal` (twice, if asked) once stderr holds this text.
  int signal = 0;
  std::string signal_when = {};
  bool signal_twice = false;
  double limit_seconds = 120;  // then it is killed and the code is -1
};

struct RunResult {
  int code = -1;  // exit code, or 128 + signal
  std::string output;
  std::string messages;  // stderr
};

RunResult RunProcess(const std::vector<std::string>& words, const RunOptions& options = {});

// The built program with these arguments.
RunResult RunLanewise(std::vector<std::string> arguments, const RunOptions& options = {});

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_PROCESS_H_
