#include "model/json.h"

#include <doctest/doctest.h>

#include "model/error.h"
#include "tests/support/model_files.h"

namespace lanewise::model {
namespace {

using testing::Contains;
using testing::MessageOf;

std::string ParseMessage(const std::string& text) {
  return MessageOf<InputError>([&] { ParseJson(text, "c.json"); });
}

TEST_CASE("malformed and excessive documents are refused") {
  CHECK(ParseMessage(R"({"a": 1, "b": {"a": 1}, "c": [{"a": 2}, {"a": 3}]})").empty());
  CHECK(Contains(ParseMessage(R"({"a": 1, "a": 2})"), "key \"a\" occurs twice"));
  CHECK(Contains(ParseMessage(R"({"x": [{"a": 1, "b": 0, "a": 2}]})"), "\"a\" occurs twice"));
  CHECK(Contains(ParseMessage(R"({"a": 1)"), "not valid JSON"));
  CHECK(Contains(ParseMessage(""), "not valid JSON"));
  CHECK(Contains(ParseMessage("{} x"), "not valid JSON"));
  CHECK(Contains(ParseMessage("{\"a\": \"\xff\"}"), "not valid JSON"));
  CHECK(Contains(ParseMessage("{\"a\": 1e999}"), "not valid JSON"));
  CHECK(Contains(ParseMessage(std::string(100'000, '[')), "nested too deeply"));
  std::string many = "[0";
  for (int i = 0; i < 1'000'000; ++i) many += ",0";
  CHECK(Contains(ParseMessage(many + "]"), "more JSON values"));
}

TEST_CASE("fields are checked by kind and range") {
  const Json json = ParseJson(
      R"({"n": 5, "neg": -1, "x": 1.5, "s": "t", "b": true, "big": 18446744073709551615, "z": null})",
      "c.json");
  CHECK(GetInteger(json, "n", 1, 5, "c.json") == 5);
  CHECK(GetNumber(json, "n", "c.json") == 5.0);
  CHECK(GetString(json, "s", "c.json") == "t");
  CHECK(GetBool(json, "b", "c.json"));
  const auto integer = [&](const char* field) {
    return MessageOf<InputError>([&] { GetInteger(json, field, 0, 4, "c.json"); });
  };
  CHECK(integer("n") == "c.json: \"n\" must be an integer from 0 to 4, is 5");
  CHECK(Contains(integer("neg"), "is -1"));
  CHECK(Contains(integer("x"), "is 1.5"));
  CHECK(Contains(integer("big"), "is 18446744073709551615"));
  CHECK(Contains(integer("none"), "\"none\" is missing"));
  CHECK(Contains(integer("z"), "is null"));
  CHECK(!MessageOf<InputError>([&] { GetBool(json, "n", "c.json"); }).empty());
  CHECK(!MessageOf<InputError>([&] { GetString(json, "n", "c.json"); }).empty());
  CHECK(!MessageOf<InputError>([&] { GetNumber(json, "s", "c.json"); }).empty());
}

TEST_CASE("any bytes survive JSON") {
  for (const std::string& bytes :
       {std::string(), std::string("text"), std::string("\0\n\x7f", 3), std::string("\xff\xfe"),
        std::string("é"), testing::RandomBytes(1000, 3)}) {
    const Json json = ParseJson(BytesToJson(bytes).dump(), "t");
    CHECK(BytesFromJson(json, "t") == bytes);
  }
  CHECK(!MessageOf<InputError>([] { BytesFromJson({{"hex", "0g"}}, "t"); }).empty());
  CHECK(!MessageOf<InputError>([] { BytesFromJson({{"hex", "012"}}, "t"); }).empty());
  CHECK(!MessageOf<InputError>([] { BytesFromJson(7, "t"); }).empty());
}

}  // namespace
}  // namespace lanewise::model
