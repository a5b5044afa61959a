#include "model/formats/safetensors_header.h"

#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "model/checksum.h"
#include "model/error.h"

namespace lanewise::model {
namespace {

using Json = nlohmann::json;

// Limits that no real file comes near; they bound the memory that a header can ask for.
constexpr size_t kMostTensors = 100'000;
constexpr size_t kMostMetadata = 250'000;
constexpr size_t kMostDimensions = 32;
constexpr size_t kLongestString = 4u << 20;
constexpr size_t kLongestNumber = 64;

constexpr std::string_view kNoChecksum = "0000000000000000";

// Rejects strings and numbers that are longer than any honest one before the parser copies them.
void CheckTokenLengths(std::string_view text, const std::string& where) {
  bool in_string = false;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (i - begin > kLongestString) {
        throw InputError(where + ": header: a string at offset " + std::to_string(begin + 8) +
                         " is longer than " + std::to_string(kLongestString) + " bytes");
      }
      if (c == '"') in_string = false, begin = i + 1;
    } else if (c == '"') {
      in_string = true;
      begin = i;
    } else if (c == ' ' || c == ',' || c == ':' || c == '[' || c == ']' || c == '{' || c == '}') {
      begin = i + 1;
    } else if (i - begin > kLongestNumber) {
      throw InputError(where + ": header: not valid JSON at offset " + std::to_string(begin + 8));
    }
  }
}

// Receives the parser's events and accepts exactly the shape that a header has:
// {"__metadata__": {string: string}, NAME: {"dtype": s, "shape": [n], "data_offsets": [n, n]}}.
class HeaderHandler final : public nlohmann::json_sax<Json> {
 public:
  HeaderHandler(const std::string& where, SafetensorsHeader* header)
      : where_(where), header_(header) {}

  bool null() override { Fail("null is not expected"); }
  bool boolean(bool) override { Fail("true or false is not expected"); }
  bool number_integer(number_integer_t) override { Fail("a negative number"); }
  bool number_float(number_float_t, const string_t& text) override {
    Fail(text + " is no integer that fits");
  }
  bool binary(binary_t&) override { Fail("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kShape) {
      if (entry_.shape.size() == kMostDimensions) Fail("more than 32 dimensions");
      entry_.shape.push_back(value);
    } else if (state_ == State::kOffsets) {
      if (offsets_ == 2) Fail("more than two numbers");
      (offsets_++ == 0 ? entry_.begin : entry_.end) = value;
    } else {
      Fail("a number is not expected");
    }
    return true;
  }

  bool string(string_t& value) override {
    if (state_ == State::kMetadata) {
      metadata_->second = std::move(value);
    } else if (state_ == State::kTensor && field_ == "dtype") {
      const auto dtype = ParseDType(value);
      if (!dtype) Fail("unknown dtype \"" + value + "\"");
      entry_.dtype = *dtype;
    } else {
      Fail("a string is not expected");
    }
    return true;
  }

  bool start_object(size_t) override {
    if (state_ == State::kStart) {
      state_ = State::kTop;
    } else if (state_ == State::kTop) {
      state_ = name_ == "__metadata__" ? State::kMetadata : State::kTensor;
    } else {
      Fail("an object is not expected");
    }
    return true;
  }

  bool key(string_t& value) override {
    switch (state_) {
      case State::kTop:
        name_ = value;
        if (name_ == "__metadata__") {
          if (std::exchange(seen_metadata_, true)) Fail("occurs twice");
        } else {
          if (!names_.insert(name_).second) Fail("occurs twice");
          if (names_.size() > kMostTensors) Fail("more than 100000 tensors");
          entry_ = {};
          entry_.name = name_;
          offsets_ = 0;
          fields_ = 0;
        }
        break;
      case State::kMetadata: {
        const auto [at, added] = header_->metadata.emplace(std::move(value), "");
        if (!added) Fail("key \"" + at->first + "\" occurs twice");
        if (header_->metadata.size() > kMostMetadata) Fail("more than 250000 entries");
        metadata_ = at;
        break;
      }
      default: {
        field_ = value;
        const unsigned bit = field_ == "dtype"          ? 1
                             : field_ == "shape"        ? 2
                             : field_ == "data_offsets" ? 4
                                                        : 0;
        if (bit == 0) Fail("unknown field");
        if ((fields_ & bit) != 0) Fail("occurs twice");
        fields_ |= bit;
      }
    }
    return true;
  }

  bool end_object() override {
    if (state_ == State::kTensor) {
      field_.clear();
      if (fields_ != 7) Fail("dtype, shape or data_offsets is missing");
      if (offsets_ != 2) Fail("data_offsets has not two numbers");
      header_->entries.push_back(std::move(entry_));
    }
    state_ = state_ == State::kTop ? State::kEnd : State::kTop;
    return true;
  }

  bool start_array(size_t) override {
    if (state_ != State::kTensor || field_ == "dtype") Fail("a list is not expected");
    state_ = field_ == "shape" ? State::kShape : State::kOffsets;
    return true;
  }
  bool end_array() override {
    state_ = State::kTensor;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const Json::exception&) override {
    throw InputError(where_ + ": header: not valid JSON at offset " + std::to_string(position + 8));
  }

 private:
  enum class State { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };

  [[noreturn]] void Fail(const std::string& what) const {
    std::string place = ": header";
    if (state_ != State::kStart && !name_.empty()) {
      const std::string name = name_.substr(0, 100);
      place = name == "__metadata__" ? ": __metadata__" : ": tensor \"" + name + "\"";
    }
    const bool in_tensor =
        state_ == State::kTensor || state_ == State::kShape || state_ == State::kOffsets;
    if (in_tensor && !field_.empty()) place += ": \"" + field_.substr(0, 100) + "\"";
    throw InputError(where_ + place + ": " + what.substr(0, 200));
  }

  const std::string& where_;
  SafetensorsHeader* header_;
  State state_ = State::kStart;
  std::string name_;
  std::string field_;
  std::set<std::string> names_;
  bool seen_metadata_ = false;
  std::map<std::string, std::string>::iterator metadata_;
  SafetensorsEntry entry_;
  unsigned fields_ = 0;
  int offsets_ = 0;
};

std::string Quoted(const std::string& text) { return Json(text).dump(); }

std::string SealKey() { return '"' + std::string(kHeaderChecksumKey) + "\":\""; }

}  // namespace

SafetensorsHeader ParseSafetensorsHeader(std::string_view text, const std::string& where) {
  CheckTokenLengths(text, where);
  SafetensorsHeader header;
  HeaderHandler handler(where, &header);
  Json::sax_parse(text.begin(), text.end(), &handler);
  for (const SafetensorsEntry& entry : header.entries) {
    const std::string place = where + ": tensor \"" + entry.name + "\": ";
    const auto elements = CheckedElements(entry.shape);
    if (!elements || *elements > UINT64_MAX / DTypeSize(entry.dtype)) {
      throw InputError(place + "shape " + ShapeText(entry.shape) + " overflows");
    }
    const uint64_t size = *elements * DTypeSize(entry.dtype);
    if (entry.end < entry.begin || entry.end - entry.begin != size) {
      throw InputError(place + "data_offsets " + std::to_string(entry.begin) + " to " +
                       std::to_string(entry.end) + " do not hold the " + std::to_string(size) +
                       " bytes of shape " + ShapeText(entry.shape));
    }
  }
  return header;
}

std::string MakeSafetensorsHeader(const SafetensorsHeader& header) {
  std::string text = "{";
  if (!header.metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : header.metadata) {
      if (text.back() != '{') text += ',';
      text += Quoted(key) + ':' + Quoted(value);
    }
    text += '}';
  }
  for (const SafetensorsEntry& entry : header.entries) {
    if (text.back() != '{') text += ',';
    text += Quoted(entry.name) + ":{\"dtype\":\"" + std::string(DTypeName(entry.dtype)) +
            "\",\"shape\":[";
    for (size_t i = 0; i < entry.shape.size(); ++i) {
      text += (i == 0 ? "" : ",") + std::to_string(entry.shape[i]);
    }
    text += "],\"data_offsets\":[" + std::to_string(entry.begin) + ',' + std::to_string(entry.end) +
            "]}";
  }
  text += '}';
  text.append((64 - (8 + text.size()) % 64) % 64, ' ');
  return text;
}

std::string SealSafetensorsHeader(std::string text) {
  const size_t at = text.find(SealKey() + std::string(kNoChecksum)) + SealKey().size();
  const std::string checksum = ChecksumText(Checksum(std::as_bytes(std::span(text))));
  return text.replace(at, checksum.size(), checksum);
}

bool CheckSafetensorsSeal(std::string_view text, std::string_view checksum) {
  const std::string key = SealKey();
  const size_t found = text.find(key);
  if (found == std::string_view::npos || checksum.size() != kNoChecksum.size()) return false;
  const size_t at = found + key.size();
  if (text.substr(at, checksum.size()) != checksum) return false;
  ChecksumStream stream;
  stream.Update(std::as_bytes(std::span(text.substr(0, at))));
  stream.Update(std::as_bytes(std::span(kNoChecksum)));
  stream.Update(std::as_bytes(std::span(text.substr(at + checksum.size()))));
  return ChecksumText(stream.Digest()) == checksum;
}

}  // namespace lanewise::model
