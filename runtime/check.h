// Checks of programmer mistakes. They stay on in release builds: a wrong shape must never become a
// wrong number.
#ifndef LANEWISE_RUNTIME_CHECK_H_
#define LANEWISE_RUNTIME_CHECK_H_

#include <sstream>
#include <stdexcept>
#include <string>

namespace lanewise::runtime {

// A broken precondition inside the program: a defect, never a consequence of bad input.
class CheckError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Concatenates its arguments as an output stream would.
template <typename... Args>
std::string StrCat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

[[noreturn]] inline void CheckFailed(const std::string& message) { throw CheckError(message); }

}  // namespace lanewise::runtime

// LW_CHECK(a == b, "rms_norm: w has ", b, " entries, x has ", a, " columns");
#define LW_CHECK(condition, ...)                                                  \
  do {                                                                            \
    if (!(condition)) {                                                           \
      ::lanewise::runtime::CheckFailed(::lanewise::runtime::StrCat(__VA_ARGS__)); \
    }                                                                             \
  } while (false)

#endif  // LANEWISE_RUNTIME_CHECK_H_
