// safetensors: named tensors behind a JSON header. Written with a checksum for every tensor and one
// for the header in __metadata__ ("xxh3.NAME", "xxh3.__header__"), data on a multiple of 64 bytes.
// Read from a mapping, without copies.
#ifndef LANEWISE_MODEL_FORMATS_SAFETENSORS_H_
#define LANEWISE_MODEL_FORMATS_SAFETENSORS_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "model/checksum.h"
#include "model/file.h"
#include "model/formats/tensor.h"

namespace lanewise::model {

using StringMap = std::map<std::string, std::string>;

// Bytes that WriteSafetensors would write.
uint64_t SafetensorsSize(const std::vector<TensorSource>& tensors, const StringMap& metadata);

// Writes and syncs the file; returns the checksum of all of it. Names must differ. IoError on
// failure, std::logic_error where a source gives another number of bytes than its shape.
uint64_t WriteSafetensors(FileSystem& files, const std::string& path,
                          const std::vector<TensorSource>& tensors, const StringMap& metadata);
// The same to a file that is open, and synced and closed elsewhere.
uint64_t WriteSafetensors(File& file, const std::vector<TensorSource>& tensors,
                          const StringMap& metadata);

class SafetensorsFile {
 public:
  SafetensorsFile() = default;
  // Maps the file and checks its header completely; InputError names file and field.
  static SafetensorsFile Open(FileSystem& files, const std::string& path);
  // The same over bytes that outlive the result.
  static SafetensorsFile Parse(std::span<const std::byte> bytes, const std::string& where);

  const std::string& path() const { return path_; }
  const std::vector<TensorView>& tensors() const { return tensors_; }  // in the order of the data
  const TensorView* Find(std::string_view name) const;                 // nullptr where missing
  const StringMap& metadata() const { return metadata_; }              // without the checksums
  bool has_checksums() const { return sealed_; }
  // Compares every tensor with its checksum; InputError names the first that differs. Does nothing
  // for files of others, which have none.
  void Verify() const;
  std::shared_ptr<const void> owner() const { return file_.owner(); }

 private:
  std::string path_;
  MappedFile file_;
  std::vector<TensorView> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
  StringMap metadata_;
  StringMap checksums_;
  bool sealed_ = false;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_FORMATS_SAFETENSORS_H_
