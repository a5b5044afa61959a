#include "model/formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "model/error.h"
#include "model/formats/safetensors_header.h"
#include "runtime/check.h"

namespace lanewise::model {
namespace {

constexpr size_t kWriteBuffer = 1 << 20;

std::string ChecksumKey(const std::string& name) { return std::string(kChecksumPrefix) + name; }

// Collects small pieces into large writes and takes the checksum of all.
class BufferedWriter {
 public:
  explicit BufferedWriter(File* file) : file_(file) { buffer_.reserve(kWriteBuffer); }

  void Write(std::span<const std::byte> bytes) {
    checksum_.Update(bytes);
    if (buffer_.size() + bytes.size() > kWriteBuffer) Flush();
    if (bytes.size() > kWriteBuffer) {
      file_->Write(bytes.data(), bytes.size());
    } else {
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    }
  }

  void Flush() {
    if (!buffer_.empty()) file_->Write(buffer_.data(), buffer_.size());
    buffer_.clear();
  }

  uint64_t Digest() const { return checksum_.Digest(); }

 private:
  File* file_;
  std::vector<std::byte> buffer_;
  ChecksumStream checksum_;
};

// The header without checksums yet: every one of them has the same length, so sizes are right.
SafetensorsHeader MakeHeader(const std::vector<TensorSource>& tensors, const StringMap& metadata) {
  const std::string none(16, '0');
  SafetensorsHeader header;
  header.metadata = metadata;
  header.metadata[std::string(kHeaderChecksumKey)] = none;
  uint64_t offset = 0;
  for (const TensorSource& tensor : tensors) {
    if (tensor.name == "__metadata__") throw std::logic_error("a tensor named __metadata__");
    if (!header.metadata.emplace(ChecksumKey(tensor.name), none).second) {
      throw std::logic_error("two tensors named " + tensor.name);
    }
    const uint64_t end = offset + tensor.ByteSize();
    header.entries.push_back({tensor.name, tensor.dtype, tensor.shape, offset, end});
    offset = end;
  }
  return header;
}

// Runs through a source; throws where it gives another number of bytes than its shape.
void Produce(const TensorSource& tensor, const ByteSink& sink) {
  uint64_t count = 0;
  tensor.produce([&](std::span<const std::byte> bytes) {
    count += bytes.size();
    if (count <= tensor.ByteSize()) sink(bytes);
  });
  if (count != tensor.ByteSize()) {
    throw std::logic_error("tensor " + tensor.name + ": " + std::to_string(count) +
                           " bytes produced for shape " + ShapeText(tensor.shape));
  }
}

uint64_t ReadLittleEndian64(std::span<const std::byte> bytes) {
  uint64_t value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

}  // namespace

uint64_t SafetensorsSize(const std::vector<TensorSource>& tensors, const StringMap& metadata) {
  const SafetensorsHeader header = MakeHeader(tensors, metadata);
  return 8 + MakeSafetensorsHeader(header).size() +
         (header.entries.empty() ? 0 : header.entries.back().end);
}

uint64_t WriteSafetensors(File& file, const std::vector<TensorSource>& tensors,
                          const StringMap& metadata) {
  SafetensorsHeader header = MakeHeader(tensors, metadata);
  for (const TensorSource& tensor : tensors) {
    ChecksumStream checksum;
    Produce(tensor, [&](std::span<const std::byte> bytes) { checksum.Update(bytes); });
    header.metadata[ChecksumKey(tensor.name)] = ChecksumText(checksum.Digest());
  }
  const std::string text = SealSafetensorsHeader(MakeSafetensorsHeader(header));
  const uint64_t length = text.size();

  BufferedWriter writer(&file);
  writer.Write(std::as_bytes(std::span(&length, 1)));
  writer.Write(std::as_bytes(std::span(text)));
  for (const TensorSource& tensor : tensors) {
    Produce(tensor, [&](std::span<const std::byte> bytes) { writer.Write(bytes); });
  }
  writer.Flush();
  return writer.Digest();
}

uint64_t WriteSafetensors(FileSystem& files, const std::string& path,
                          const std::vector<TensorSource>& tensors, const StringMap& metadata) {
  File file(files, path, OpenMode::kWrite);
  const uint64_t checksum = WriteSafetensors(file, tensors, metadata);
  file.Sync();
  file.Close();
  return checksum;
}

SafetensorsFile SafetensorsFile::Open(FileSystem& files, const std::string& path) {
  MappedFile file(files, path);
  SafetensorsFile result = Parse(file.bytes(), path);
  result.file_ = std::move(file);
  return result;
}

SafetensorsFile SafetensorsFile::Parse(std::span<const std::byte> bytes, const std::string& where) {
  const auto fail = [&](const std::string& what) { throw InputError(where + ": " + what); };
  if (bytes.size() < 8) {
    fail("no safetensors file: " + std::to_string(bytes.size()) + " bytes, at least 8 are needed");
  }
  const uint64_t length = ReadLittleEndian64(bytes);
  if (length > kMaxSafetensorsHeader) {
    fail("no safetensors file: header length " + std::to_string(length) +
         " at offset 0 is beyond " + std::to_string(kMaxSafetensorsHeader));
  }
  if (length > bytes.size() - 8) {
    fail("header length " + std::to_string(length) + " at offset 0 is beyond the file (" +
         std::to_string(bytes.size()) + " bytes); the file is truncated");
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8,
                              static_cast<size_t>(length));
  if (text.empty() || text[0] != '{') fail("no safetensors file: no { at offset 8");
  const std::span<const std::byte> data = bytes.subspan(8 + text.size());

  SafetensorsFile result;
  result.path_ = where;
  SafetensorsHeader header = ParseSafetensorsHeader(text, where);
  for (auto it = header.metadata.lower_bound(std::string(kChecksumPrefix));
       it != header.metadata.end() && it->first.starts_with(kChecksumPrefix);) {
    result.checksums_.insert(header.metadata.extract(it++));
  }
  result.metadata_ = std::move(header.metadata);
  if (!result.checksums_.empty()) {
    const auto seal = result.checksums_.find(std::string(kHeaderChecksumKey));
    if (seal == result.checksums_.end() || !CheckSafetensorsSeal(text, seal->second)) {
      fail("the header does not have its checksum; the file is corrupt");
    }
    result.checksums_.erase(seal);
    result.sealed_ = true;
  }

  std::vector<SafetensorsEntry>& entries = header.entries;
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t offset = 0;
  for (SafetensorsEntry& entry : entries) {
    const std::string place = "tensor \"" + entry.name + "\": data_offsets ";
    if (entry.end > data.size()) {
      fail(place + "end " + std::to_string(entry.end) + " beyond the data (" +
           std::to_string(data.size()) + " bytes)");
    }
    if (entry.begin != offset) {
      fail(place + "begin " + std::to_string(entry.begin) + " where " + std::to_string(offset) +
           " is expected: tensors overlap or leave a hole");
    }
    offset = entry.end;
    result.index_.emplace(entry.name, result.tensors_.size());
    result.tensors_.push_back({std::move(entry.name), entry.dtype, std::move(entry.shape),
                               data.subspan(static_cast<size_t>(entry.begin),
                                            static_cast<size_t>(entry.end - entry.begin)),
                               where});
  }
  if (offset != data.size()) {
    fail(std::to_string(data.size() - offset) + " bytes after the last tensor at offset " +
         std::to_string(8 + length + offset));
  }
  return result;
}

const TensorView* SafetensorsFile::Find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

void SafetensorsFile::Verify() const {
  if (!sealed_) return;
  for (const TensorView& tensor : tensors_) {
    const auto expected = checksums_.find(ChecksumKey(tensor.name));
    const std::string place = path_ + ": tensor \"" + tensor.name + "\": ";
    if (expected == checksums_.end()) throw InputError(place + "its checksum is missing");
    const std::string got = ChecksumText(Checksum(tensor.bytes));
    if (got != expected->second) {
      throw InputError(runtime::StrCat(place, "checksum ", got, " where ", expected->second,
                                       " is stored; the file is corrupt"));
    }
  }
}

}  // namespace lanewise::model
