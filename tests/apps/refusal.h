// How the program refuses: an exit code, one or two lines that say what, where and how to go on,
// and no output.
#ifndef LANEWISE_TESTS_APPS_REFUSAL_H_
#define LANEWISE_TESTS_APPS_REFUSAL_H_

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/process.h"

namespace lanewise::testing {

inline bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The message has all these parts.
inline void CheckRefused(const RunResult& result, int code, const std::vector<std::string>& parts) {
  CAPTURE(result.messages);
  CHECK(result.code == code);
  CHECK(result.output.empty());
  CHECK(result.messages.starts_with("error: "));
  for (const std::string& part : parts) {
    CAPTURE(part);
    CHECK(Contains(result.messages, part));
  }
  // One or two lines, and where the help is.
  CHECK(std::count(result.messages.begin(), result.messages.end(), '\n') <= 3);
}

inline void CheckRefusal(const std::vector<std::string>& arguments, int code,
                         const std::vector<std::string>& parts, const RunOptions& options = {}) {
  std::string command;
  for (const std::string& argument : arguments) command += argument + " ";
  CAPTURE(command);
  CheckRefused(RunLanewise(arguments, options), code, parts);
}

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_APPS_REFUSAL_H_
