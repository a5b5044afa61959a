// XXH3 checksums (64 bits), as 16 hexadecimal digits where they are stored.
#ifndef LANEWISE_MODEL_CHECKSUM_H_
#define LANEWISE_MODEL_CHECKSUM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace lanewise::model {

uint64_t Checksum(std::span<const std::byte> bytes);
std::string ChecksumText(uint64_t checksum);

// The checksum of bytes that come in pieces.
class ChecksumStream {
 public:
  ChecksumStream();
  ~ChecksumStream();
  void Update(std::span<const std::byte> bytes);
  uint64_t Digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_CHECKSUM_H_
