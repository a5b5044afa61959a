// Large aligned memory: activations, weights, moments.
#ifndef LANEWISE_RUNTIME_ARENA_H_
#define LANEWISE_RUNTIME_ARENA_H_

#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>

namespace lanewise::runtime {

// The machine refused memory. The message names the purpose and the size.
class OutOfMemory : public std::runtime_error {
 public:
  OutOfMemory(const std::string& purpose, size_t bytes);
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_;
};

// One block of zeroed memory, page-aligned, with large pages where the system offers them. Movable.
class Arena {
 public:
  Arena() = default;
  // Throws OutOfMemory.
  Arena(const std::string& purpose, size_t bytes);
  ~Arena();
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  template <typename T>
  std::span<T> As() const {
    return {reinterpret_cast<T*>(data_), size_ / sizeof(T)};
  }
  std::span<float> Floats() const { return As<float>(); }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// For tests: makes the k-th Arena from now on (1 is the next) fail as if memory were short; 0
// switches off.
void FailArenaAfter(size_t k);

// The largest resident size of this process so far, in bytes; 0 where the system does not tell.
size_t PeakResidentBytes();
// Physical memory of the machine (or of the container), and what is free of it now; 0 when unknown.
size_t TotalMemoryBytes();
size_t AvailableMemoryBytes();

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_ARENA_H_
