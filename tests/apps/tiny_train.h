// A training from the command line that takes a moment.
#ifndef LANEWISE_TESTS_APPS_TINY_TRAIN_H_
#define LANEWISE_TESTS_APPS_TINY_TRAIN_H_

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/support/process.h"

namespace lanewise::testing {

inline std::string SomeText(size_t lines) {
  std::string text;
  for (size_t i = 0; i < lines; ++i) {
    text +=
        "the quick brown fox number " + std::to_string(i * 37 % 101) + " jumps over the lazy dog\n";
  }
  return text;
}

inline std::vector<std::string> Tiny(const std::string& data, const std::string& out,
                                     const std::vector<std::string>& more = {}) {
  std::vector<std::string> words = {
      "train", "--data",  data, "--out", out,  "--tokenizer", "char", "--layers",  "1", "--dim",
      "16",    "--heads", "2",  "--ctx", "16", "--batch",     "4",    "--threads", "2"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

inline RunResult Succeed(const std::vector<std::string>& words, const RunOptions& options = {}) {
  RunResult result = RunLanewise(words, options);
  CAPTURE(result.messages);
  REQUIRE(result.code == 0);
  return result;
}

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_APPS_TINY_TRAIN_H_
