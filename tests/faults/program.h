// The command of a tiny training, for tests that run the real program.
#ifndef LANEWISE_TESTS_FAULTS_PROGRAM_H_
#define LANEWISE_TESTS_FAULTS_PROGRAM_H_

#include <string>
#include <vector>

namespace lanewise::testing {

// The program's arguments: saves after every step.
inline std::vector<std::string> TrainWords(const std::string& kind, const std::string& data,
                                           const std::string& run, int steps) {
  return {"train",
          "--data",
          data,
          "--out",
          run,
          "--model",
          kind,
          "--tokenizer",
          "char",
          "--layers",
          "1",
          "--dim",
          "16",
          "--heads",
          "2",
          "--ctx",
          "16",
          "--batch",
          "4",
          "--threads",
          "1",
          "--steps",
          std::to_string(steps),
          "--save-every",
          "1",
          "--eval-every",
          "5"};
}

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_FAULTS_PROGRAM_H_
