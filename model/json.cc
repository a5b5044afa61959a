#include "model/json.h"

#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "model/error.h"

namespace lanewise::model {
namespace {

constexpr int kDeepest = 64;
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

// Watches a parse: duplicate keys, depth, number of values.
class Watcher {
 public:
  explicit Watcher(const std::string& where) : where_(where) {}

  bool operator()(int depth, nlohmann::json::parse_event_t event, Json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > kDeepest) throw InputError(where_ + ": JSON nested too deeply");
    if (event == Event::object_start) {
      keys_.emplace_back();
    } else if (event == Event::object_end) {
      keys_.pop_back();
    } else if (event == Event::key) {
      std::string key = parsed.get<std::string>();
      if (!keys_.back().insert(key).second) {
        throw InputError(where_ + ": key \"" + Shortened(std::move(key)) + "\" occurs twice");
      }
    }
    if (event != Event::object_end && event != Event::array_end && ++values_ > kMostValues) {
      throw InputError(where_ + ": more JSON values than any such file has");
    }
    return true;
  }

 private:
  const std::string& where_;
  std::vector<std::set<std::string>> keys_;
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
    return Json::parse(text.begin(), text.end(), std::ref(watcher));
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
