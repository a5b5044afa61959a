// The fuzzer's functions over the committed corpus: good files, odd ones, and what the fuzzer has
// found.
#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "model/error.h"
#include "tests/fuzz/targets.h"
#include "tests/support/temporary_folder.h"

namespace lanewise::testing {
namespace {

// True where the bytes were accepted. Anything but model::Error goes on to the test.
bool Accepts(const FuzzTarget& target, std::string_view bytes) {
  try {
    target.run(bytes);
    return true;
  } catch (const model::Error&) {
    return false;
  }
}

TEST_CASE("every input of the corpus, and every beginning of it, is accepted or refused") {
  for (const FuzzTarget& target : FuzzTargets()) {
    const std::string folder = LANEWISE_SOURCE_DIR "/tests/fuzz/corpus/" + std::string(target.name);
    CAPTURE(folder);
    size_t inputs = 0, accepted = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      CAPTURE(name);
      const std::string bytes = ReadWhole(entry.path().string());
      const bool good = Accepts(target, bytes);
      // Their names say what they are.
      if (name.starts_with("good")) CHECK(good);
      ++inputs;
      accepted += good ? 1 : 0;
      for (size_t size = 0; size < bytes.size(); size += 1 + bytes.size() / 200) {
        Accepts(target, bytes.substr(0, size));
      }
    }
    CHECK(inputs > 0);
    CHECK(accepted > 0);
  }
}

}  // namespace
}  // namespace lanewise::testing
