#include "model/nearest.h"

#include <doctest/doctest.h>

namespace lanewise::model {
namespace {

const std::vector<std::string> kSchedules = {"constant", "linear", "cosine", "wsd"};

TEST_CASE("typing errors lead to the nearest name") {
  CHECK(NearestName("cosin", kSchedules) == "cosine");    // a letter less
  CHECK(NearestName("cossine", kSchedules) == "cosine");  // one more
  CHECK(NearestName("liniar", kSchedules) == "linear");   // a wrong one
  CHECK(NearestName("wds", kSchedules) == "wsd");         // two swapped
  CHECK(NearestName("WSD", kSchedules) == "wsd");
  CHECK(NearestName("con", kSchedules) == "constant");  // a beginning
  CHECK(NearestName("cosine", kSchedules) == "cosine");
  CHECK(NearestName("--laern", {"--lr", "--layers", "--learn"}) == "--learn");
}

TEST_CASE("the first of equally near names wins") {
  CHECK(NearestName("bat", {"cat", "hat"}) == "cat");
}

TEST_CASE("what resembles nothing has no nearest name") {
  CHECK(NearestName("xyzzy", kSchedules).empty());
  CHECK(NearestName("", kSchedules).empty());
  CHECK(NearestName("cosine", {}).empty());
  CHECK(NearestName(std::string(100'000, 'c'), kSchedules).empty());
}

TEST_CASE("messages list the names") {
  CHECK(UnknownName("schedule", "cosin", kSchedules) ==
        "there is no schedule \"cosin\": did you mean \"cosine\"? (constant, linear, cosine, wsd)");
  CHECK(UnknownName("schedule", "xyzzy", kSchedules) ==
        "there is no schedule \"xyzzy\"; it can be constant, linear, cosine, wsd");
}

}  // namespace
}  // namespace lanewise::model
