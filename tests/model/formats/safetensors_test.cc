#include "model/formats/safetensors.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "model/error.h"
#include "model/formats/model_file.h"
#include "tests/support/memory_files.h"
#include "tests/support/model_files.h"

namespace lanewise::model {
namespace {

using testing::Contains;
using testing::MemoryFiles;
using testing::MessageOf;

// Bytes of a file with this header text and so many zero bytes of data.
std::string MakeFile(const std::string& header, size_t data) {
  const uint64_t length = header.size();
  std::string bytes(reinterpret_cast<const char*>(&length), 8);
  return bytes + header + std::string(data, '\0');
}

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string ParseMessage(const std::string& file) {
  return MessageOf<InputError>([&] { SafetensorsFile::Parse(Bytes(file), "f").Verify(); });
}

std::string HeaderMessage(const std::string& header, size_t data) {
  return ParseMessage(MakeFile(header, data));
}

NamedTensor Named(const std::string& name, std::span<const float> values) {
  return MakeNamedTensor({name, DType::kF32, {values.size()}, std::as_bytes(values)}, nullptr);
}

struct Sample {
  std::vector<float> a = {1.0f, -2.5f, 3e-8f, 4.0f, 5.0f, 6.0f};
  std::vector<float> b = {0.5f, std::numeric_limits<float>::denorm_min(), -0.0f};
  std::vector<uint64_t> keys = {7, UINT64_MAX};
  std::vector<TensorSource> sources = {
      MakeSource("layers.0.weight", {2, 3}, a),
      MakeSource(Named("b \"quoted\" é", b), /*bf16=*/true),
      MakeStridedSource("strided", a.data(), 2, 2, 3),
      {"keys",
       DType::kU64,
       {2},
       [words = std::as_bytes(std::span(keys))](const ByteSink& sink) { sink(words); }},
      MakeSource("none", {0, 4}, std::span<const float>())};
  StringMap metadata = {{"format", "pt"}, {"note", "a \"b\"\n"}};
};

std::string WrittenSample() {
  MemoryFiles files;
  const Sample sample;
  WriteSafetensors(files, "f", sample.sources, sample.metadata);
  return files.Content("f");
}

TEST_CASE("what is written is read back") {
  MemoryFiles files;
  files.TransferAtMost(100);
  const Sample sample;
  const uint64_t checksum = WriteSafetensors(files, "f", sample.sources, sample.metadata);
  const std::string bytes = files.Content("f");
  CHECK(checksum == Checksum(Bytes(bytes)));
  CHECK(bytes.size() == SafetensorsSize(sample.sources, sample.metadata));
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  CHECK((8 + length) % 64 == 0);

  const SafetensorsFile file = SafetensorsFile::Open(files, "f");
  CHECK(file.has_checksums());
  file.Verify();
  CHECK(file.metadata() == sample.metadata);
  REQUIRE(file.tensors().size() == 5);
  CHECK(file.Find("nothing") == nullptr);

  const TensorView& a = *file.Find("layers.0.weight");
  CHECK(a.dtype == DType::kF32);
  CHECK(a.shape == Shape{2, 3});
  std::vector<float> values(6);
  a.ReadFloats(0, values);
  CHECK(values == sample.a);
  const TensorView& strided = *file.Find("strided");
  std::vector<float> part(3);
  strided.ReadFloats(1, part);
  CHECK(part == std::vector<float>{-2.5f, 4.0f, 5.0f});
  CHECK_THROWS(strided.ReadFloats(2, part));
  const TensorView& b = *file.Find("b \"quoted\" é");
  CHECK(b.dtype == DType::kBF16);
  b.ReadFloats(0, part);
  CHECK(part[0] == 0.5f);
  CHECK(part[1] == 0.0f);
  CHECK(std::signbit(part[2]));
  const TensorView& keys = *file.Find("keys");
  CHECK(keys.dtype == DType::kU64);
  CHECK(std::memcmp(keys.bytes.data(), sample.keys.data(), 16) == 0);
  CHECK(MessageOf<InputError>([&] { keys.ReadFloats(0, std::span(part).first(2)); }) ==
        "f: tensor \"keys\": holds U64, where F32, BF16, F16 or F64 is expected");
  CHECK(file.Find("none")->shape == Shape{0, 4});
}

TEST_CASE("no truncation and no flipped bit loads") {
  const std::string good = WrittenSample();
  REQUIRE(ParseMessage(good).empty());
  for (size_t size = 0; size < good.size(); ++size) {
    CAPTURE(size);
    CHECK(!ParseMessage(good.substr(0, size)).empty());
  }
  CHECK(Contains(ParseMessage(good + "x"), "1 bytes after the last tensor"));
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    CAPTURE(bit);
    CHECK(!ParseMessage(bad).empty());
  }
}

TEST_CASE("a flipped bit of data is laid to its tensor") {
  std::string bad = WrittenSample();
  bad[bad.size() - 1] ^= 1;
  CHECK(Contains(ParseMessage(bad), "f: tensor \"keys\": checksum"));
}

TEST_CASE("headers that are wrong are refused with file, tensor and field") {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  CHECK(HeaderMessage(good, 8).empty());
  CHECK(HeaderMessage(good + "   ", 8).empty());
  CHECK(HeaderMessage(R"({"__metadata__":{"k":"v"}})", 0).empty());
  struct Case {
    const char* header;
    size_t data;
    const char* message;
  };
  const Case cases[] = {
      {R"({"head":{"dtype":"F32","shape":[2250],"data_offsets":[0,9000]}})", 8192,
       "f: tensor \"head\": data_offsets end 9000 beyond the data (8192 bytes)"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12, "begin 4 where 0"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
       6, "tensor \"b\": data_offsets begin 2 where 4"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8, "do not hold the 12 bytes"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "do not hold"},
      {R"({"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}})", 8, "unknown dtype \"F99\""},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "\"shape\": a negative"},
      {R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8, "2.0 is no integer"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551616]}})", 8,
       "no integer that fits"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
       "overflows"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0,
       "overflows"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8, "not two numbers"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}})", 8, "more than two"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", 8, "is missing"},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8,
       "\"dtype\": occurs twice"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":"y"}})", 8, "unknown field"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       8, "tensor \"a\": occurs twice"},
      {R"({"__metadata__":{"k":"v","k":"w"}})", 0, "key \"k\" occurs twice"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "occurs twice"},
      {R"({"__metadata__":{"k":1}})", 0, "a number is not expected"},
      {R"({"__metadata__":{"k":{}}})", 0, "an object is not expected"},
      {R"({"a":null})", 0, "null is not expected"},
      {R"({"a":[]})", 0, "a list is not expected"},
      {R"({"a":{"dtype":[],"shape":[2],"data_offsets":[0,8]}})", 8, "a list is not expected"},
      {R"({"a":{"dtype":"F32","shape":"2","data_offsets":[0,8]}})", 8, "a string is not expected"},
      {R"({"a":true})", 0, "true or false"},
      {R"({"a")", 0, "not valid JSON"},
      {R"({} x)", 0, "not valid JSON"},
      {R"([])", 0, "no { at offset 8"},
      {"", 0, "no { at offset 8"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.header);
    const std::string message = HeaderMessage(c.header, c.data);
    CAPTURE(message);
    CHECK(Contains(message, c.message));
    CHECK(message.starts_with("f: "));
  }
  CHECK(Contains(HeaderMessage("{\"" + std::string(100'000'000, 'a'), 0), "beyond 100000000"));
  CHECK(Contains(HeaderMessage("{\"" + std::string(5 << 20, 'a') + "\":{}}", 0), "is longer than"));
  CHECK(Contains(HeaderMessage("{\"a\":" + std::string(100'000, '1') + "}", 0), "not valid JSON"));
  CHECK(!HeaderMessage(std::string(1'000'000, '{'), 0).empty());
}

TEST_CASE("bf16 and f16") {
  CHECK(BF16ToFloat(0x3F80) == 1.0f);
  CHECK(BF16ToFloat(0xC0A0) == -5.0f);
  CHECK(std::isnan(BF16ToFloat(0x7FC0)));
  CHECK(std::isinf(BF16ToFloat(0x7F80)));
  CHECK(F16ToFloat(0x3C00) == 1.0f);
  CHECK(F16ToFloat(0xC500) == -5.0f);
  CHECK(F16ToFloat(0x0001) == std::ldexp(1.0f, -24));
  CHECK(F16ToFloat(0x8400) == -std::ldexp(1.0f, -14));
  CHECK(std::isinf(F16ToFloat(0x7C00)));
  CHECK(std::isnan(F16ToFloat(0x7E00)));
  for (int i = 0; i < 0x7C00; ++i) {
    const float value = F16ToFloat(static_cast<uint16_t>(i));
    CHECK(value == -F16ToFloat(static_cast<uint16_t>(i | 0x8000)));
    if (i > 0) CHECK(value > F16ToFloat(static_cast<uint16_t>(i - 1)));
  }
}

TEST_CASE("what is not finite is found, wherever it is") {
  std::vector<float> values(10'001, 1.0f);
  TensorView view{"t", DType::kF32, {values.size()}, std::as_bytes(std::span(values))};
  CHECK(!FindNonFinite(view));
  for (const size_t at : {size_t{0}, size_t{4095}, size_t{4096}, size_t{10'000}}) {
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
      values[at] = bad;
      CHECK(FindNonFinite(view) == at);
      values[at] = std::numeric_limits<float>::max();
      CHECK(!FindNonFinite(view));
    }
  }
}

TEST_CASE("mistakes of the caller are told apart from bad files") {
  MemoryFiles files;
  const std::vector<float> a = {1.0f, 2.0f};
  CHECK_THROWS_AS(WriteSafetensors(files, "f", {MakeSource("a", {3}, a)}, {}), std::logic_error);
  CHECK_THROWS_AS(
      WriteSafetensors(files, "f", {MakeSource("a", {2}, a), MakeSource("a", {2}, a)}, {}),
      std::logic_error);
}

}  // namespace
}  // namespace lanewise::model
