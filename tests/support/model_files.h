// Helpers for tests of files: random content, messages of exceptions.
#ifndef LANEWISE_TESTS_SUPPORT_MODEL_FILES_H_
#define LANEWISE_TESTS_SUPPORT_MODEL_FILES_H_

#include <random>
#include <string>

#include "model/error.h"
#include "tests/support/temporary_folder.h"

namespace lanewise::testing {

inline std::string Golden(const std::string& name) {
  return std::string(LANEWISE_SOURCE_DIR) + "/tests/golden/" + name;
}

inline std::string RandomBytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

// The message of the Error that `action` throws; empty where it throws none.
template <typename Expected = model::Error, typename Action>
std::string MessageOf(const Action& action) {
  try {
    action();
  } catch (const Expected& error) {
    return error.what();
  }
  return "";
}

// True where the action succeeds or throws model::Error; anything else goes on to the test.
template <typename Action>
bool Succeeds(const Action& action) {
  try {
    action();
    return true;
  } catch (const model::Error&) {
    return false;
  }
}

inline bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_MODEL_FILES_H_
