// Strict reading of JSON from files that may be damaged or hostile.
#ifndef LANEWISE_MODEL_JSON_H_
#define LANEWISE_MODEL_JSON_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "model/file.h"

namespace lanewise::model {

using Json = nlohmann::json;

// Longest JSON file that is read; weights are never JSON.
inline constexpr uint64_t kMaxJsonFileBytes = 32u << 20;

// Parses one document. InputError names `where` (a path) and the place for malformed text,
// duplicate keys (the library alone would keep the last one), nesting beyond 64, more than 900,000
// values.
Json ParseJson(std::string_view text, const std::string& where);
Json ReadJsonFile(FileSystem& files, const std::string& path);

// Fields of an object; errors name file and field: `config.json: "layers" must be an integer from 1
// to 1000000, is "many"`.
int64_t GetInteger(const Json& object, const char* field, int64_t lowest, int64_t highest,
                   const std::string& where);
double GetNumber(const Json& object, const char* field, const std::string& where);
bool GetBool(const Json& object, const char* field, const std::string& where);
std::string GetString(const Json& object, const char* field, const std::string& where);

// Bytes that need not be UTF-8: a JSON string where they are, else {"hex": "00ff…"}.
Json BytesToJson(std::string_view bytes);
std::string BytesFromJson(const Json& value, const std::string& where);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_JSON_H_
