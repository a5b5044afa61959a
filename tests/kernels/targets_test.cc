#include "kernels/targets.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/support/targets.h"

namespace lanewise {
namespace {

TEST_CASE("The best supported target runs unless another is forced") {
  const std::vector<const char*> names = kernels::SupportedTargetNames();
  REQUIRE(!names.empty());
  CHECK(std::string(kernels::TargetName()) == names.front());
  CHECK(kernels::VectorBytes() >= 4);
}

TEST_CASE("Every supported target can be forced, and then runs") {
  std::vector<std::string> seen;
  testing::ForEachTarget([&] { seen.emplace_back(kernels::TargetName()); });
  std::vector<std::string> names;
  for (const char* name : kernels::SupportedTargetNames()) {
    if (testing::Wanted(name)) names.emplace_back(name);
  }
  CHECK(seen == names);
  CHECK(std::string(kernels::TargetName()) == kernels::SupportedTargetNames().front());
}

TEST_CASE("The list of targets is the same while one is forced") {
  const size_t count = kernels::SupportedTargetNames().size();
  REQUIRE(kernels::ForceTarget(kernels::SupportedTargetNames().back()));
  CHECK(kernels::SupportedTargetNames().size() == count);
  CHECK(kernels::ForceTarget(""));
}

TEST_CASE("Letter case is ignored, an unknown name changes nothing") {
  std::string lower = kernels::SupportedTargetNames().back();
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  REQUIRE(kernels::ForceTarget(lower));
  CHECK(std::string(kernels::TargetName()) == kernels::SupportedTargetNames().back());
  CHECK_FALSE(kernels::ForceTarget("MMX"));
  CHECK(std::string(kernels::TargetName()) == kernels::SupportedTargetNames().back());
  CHECK(kernels::ForceTarget("auto"));
  CHECK(std::string(kernels::TargetName()) == kernels::SupportedTargetNames().front());
}

}  // namespace
}  // namespace lanewise
