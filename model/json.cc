#include "model/json.h"

#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "model/error.h"

namespace lanewise::model {
namespace {

constexpr size_t kDeepest = 64;
// A tokenizer of 200,000 tokens that are no UTF-8 has four for each.
constexpr size_t kMostValues = 900'000;

std::string Shortened(std::string text, size_t longest = 60) {
  if (text.size() > longest) text = text.substr(0, longest) + "…";
  return text;
}

[[noreturn]] void ThrowField(const std::string& where, const char* field, const std::string& must,
                             const Json& value) {
  const std::string got =
      Shortened(value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
  throw InputError(where + ": \"" + field + "\" must be " + must + ", is " + got);
}

const Json& GetField(const Json& object, const char* field, const std::string& where) {
  if (!object.is_object()) throw InputError(where + ": is no JSON object");
  const auto found = object.find(field);
  if (found == object.end()) throw InputError(where + ": \"" + field + "\" is missing");
  return *found;
}

// Looks over a document before it is parsed: duplicate keys, depth, number of values. A callback of
// the parse itself would take a time that is quadratic in the objects of a list. What is no JSON is
// left to the parse.
class Watcher final : public nlohmann::json_sax<Json> {
 public:
  explicit Watcher(const std::string& where) : where_(where) {}

  bool null() override { return Count(); }
  bool boolean(bool /*value*/) override { return Count(); }
  bool number_integer(number_integer_t /*value*/) override { return Count(); }
  bool number_unsigned(number_unsigned_t /*value*/) override { return Count(); }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override { return Count(); }
  bool string(string_t& /*value*/) override { return Count(); }
  bool binary(binary_t& /*value*/) override { return Count(); }
  bool start_array(size_t /*size*/) override { return Open(); }
  bool end_array() override { return Close(); }
  bool start_object(size_t /*size*/) override { return Open(); }
  bool end_object() override { return Close(); }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) {
      throw InputError(where_ + ": key \"" + Shortened(name) + "\" occurs twice");
    }
    return Count();
  }
  bool parse_error(size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return false;
  }

 private:
  bool Count() {
    if (keys_.size() > kDeepest) throw InputError(where_ + ": JSON nested too deeply");
    if (++values_ > kMostValues) {
      throw InputError(where_ + ": more JSON values than any such file has");
    }
    return true;
  }
  bool Open() {
    keys_.emplace_back();
    return Count();
  }
  bool Close() {
    keys_.pop_back();
    return true;
  }

  const std::string& where_;
  std::vector<std::set<std::string>> keys_;  // of each open object; none of a list
  size_t values_ = 0;
};

}  // namespace

Json ParseJson(std::string_view text, const std::string& where) {
  if (text.size() > kMaxJsonFileBytes) {
    throw InputError(where + ": longer than " + FormatBytes(kMaxJsonFileBytes) +
                     ", the most that is read of such a file");
  }
  try {
    Watcher watcher(where);
    Json::sax_parse(text.begin(), text.end(), &watcher);
    return Json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 4, column 7: syntax error ...".
    std::string message = error.what();
    message.erase(0, message.find("] ") + 2);
    throw InputError(where + ": not valid JSON: " + Shortened(message, 200));
  }
}

Json ReadJsonFile(FileSystem& files, const std::string& path) {
  return ParseJson(ReadFile(files, path, kMaxJsonFileBytes), path);
}

int64_t GetInteger(const Json& object, const char* field, int64_t lowest, int64_t highest,
                   const std::string& where) {
  const Json& value = GetField(object, field, where);
  const std::string must =
      "an integer from " + std::to_string(lowest) + " to " + std::to_string(highest);
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    ThrowField(where, field, must, value);
  }
  if (!value.is_number_integer()) ThrowField(where, field, must, value);
  const auto number = value.get<int64_t>();
  if (number < lowest || number > highest) ThrowField(where, field, must, value);
  return number;
}

double GetNumber(const Json& object, const char* field, const std::string& where) {
  const Json& value = GetField(object, field, where);
  if (!value.is_number()) ThrowField(where, field, "a number", value);
  const auto number = value.get<double>();
  if (!std::isfinite(number)) ThrowField(where, field, "a finite number", value);
  return number;
}

bool GetBool(const Json& object, const char* field, const std::string& where) {
  const Json& value = GetField(object, field, where);
  if (!value.is_boolean()) ThrowField(where, field, "true or false", value);
  return value.get<bool>();
}

std::string GetString(const Json& object, const char* field, const std::string& where) {
  const Json& value = GetField(object, field, where);
  if (!value.is_string()) ThrowField(where, field, "a string", value);
  return value.get<std::string>();
}

Json BytesToJson(std::string_view bytes) {
  Json text = std::string(bytes);
  try {
    (void)text.dump();  // throws where the bytes are no UTF-8
    return text;
  } catch (const nlohmann::json::exception&) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string hex;
    for (const char c : bytes) {
      hex += kDigits[static_cast<unsigned char>(c) >> 4];
      hex += kDigits[static_cast<unsigned char>(c) & 15];
    }
    return {{"hex", std::move(hex)}};
  }
}

std::string BytesFromJson(const Json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_object()) throw InputError(where + ": must be a string or {\"hex\": …}");
  const std::string hex = GetString(value, "hex", where);
  const auto digit = [&](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    throw InputError(where + ": \"hex\" must be pairs of digits 0 to f");
  };
  if (hex.size() % 2 != 0) digit(0);
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(digit(hex[i]) * 16 + digit(hex[i + 1]));
  }
  return bytes;
}

}  // namespace lanewise::model
