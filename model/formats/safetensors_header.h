// The JSON header of a safetensors file, read without building a tree: memory stays in proportion
// to what is kept, whatever a hostile file says.
#ifndef LANEWISE_MODEL_FORMATS_SAFETENSORS_HEADER_H_
#define LANEWISE_MODEL_FORMATS_SAFETENSORS_HEADER_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "model/formats/tensor.h"

namespace lanewise::model {

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;
inline constexpr std::string_view kChecksumPrefix = "xxh3.";
inline constexpr std::string_view kHeaderChecksumKey = "xxh3.__header__";

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // as written
  std::map<std::string, std::string> metadata;
};

// Parses the text between the length and the data. InputError names `where`, tensor and field for
// duplicate keys, unknown fields and dtypes, negative or fractional numbers, and sizes that do not
// fit their offsets.
SafetensorsHeader ParseSafetensorsHeader(std::string_view text, const std::string& where);

// The header's text, space-padded so that 8 + its length is a multiple of 64.
std::string MakeSafetensorsHeader(const SafetensorsHeader& header);

// Puts the checksum of the whole text into it; its metadata must have kHeaderChecksumKey with 16
// zeros.
std::string SealSafetensorsHeader(std::string text);
// False where the text is not the one that was sealed.
bool CheckSafetensorsSeal(std::string_view text, std::string_view checksum);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_FORMATS_SAFETENSORS_HEADER_H_
