#include "model/checksum.h"

#include <xxhash.h>

#include <cstdio>
#include <new>

namespace lanewise::model {

struct ChecksumStream::State {
  XXH3_state_t xxh3;
};

uint64_t Checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::string ChecksumText(uint64_t checksum) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(checksum));
  return text;
}

ChecksumStream::ChecksumStream() : state_(std::make_unique<State>()) {
  XXH3_64bits_reset(&state_->xxh3);
}

ChecksumStream::~ChecksumStream() = default;

void ChecksumStream::Update(std::span<const std::byte> bytes) {
  XXH3_64bits_update(&state_->xxh3, bytes.data(), bytes.size());
}

uint64_t ChecksumStream::Digest() const { return XXH3_64bits_digest(&state_->xxh3); }

}  // namespace lanewise::model
