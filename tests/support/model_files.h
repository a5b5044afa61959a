// Helpers for tests of files: random content, messages of exceptions.
#ifndef LANEWISE_TESTS_SUPPORT_MODEL_FILES_H_
#define LANEWISE_TESTS_SUPPORT_MODEL_FILES_H_

#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

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

// A tokenizer.bin: 259 fixed tokens, then these with falling scores.
inline std::string TokenizerFile(const std::vector<std::string>& tokens) {
  std::string bytes;
  const auto put = [&](auto value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  put(uint32_t{27});
  const auto token = [&](float score, const std::string& text) {
    put(score);
    put(static_cast<uint32_t>(text.size()));
    bytes += text;
  };
  token(0, "<unk>");
  token(0, "\n<s>\n");
  token(0, "\n</s>\n");
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    token(0, name);
  }
  float score = -1.0f;
  for (const std::string& text : tokens) token(score--, text);
  return bytes;
}

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_MODEL_FILES_H_
