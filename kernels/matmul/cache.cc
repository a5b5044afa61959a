#include "kernels/matmul/cache.h"

#include <algorithm>
#include <atomic>

#include "kernels/matmul.h"

#if defined(__x86_64__) || defined(_M_X64)
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace lanewise::kernels::matmul {
namespace {

constexpr size_t kUnknown = size_t{512} << 10;
constexpr size_t kLeast = size_t{256} << 10;

std::atomic<size_t> given{0};

// As CPUID tells it, on AMD's and on Intel's; 0 elsewhere.
size_t AskCpu() {
  unsigned kib = 0;
#if defined(__x86_64__) || defined(_M_X64)
  constexpr unsigned kCaches = 0x80000006U;
#if defined(_MSC_VER)
  int registers[4] = {};
  __cpuid(registers, static_cast<int>(0x80000000U));
  if (static_cast<unsigned>(registers[0]) >= kCaches) {
    __cpuid(registers, static_cast<int>(kCaches));
    kib = static_cast<unsigned>(registers[2]) >> 16;
  }
#else
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(kCaches, &a, &b, &c, &d) != 0) kib = c >> 16;
#endif
#endif
  return size_t{kib} << 10;
}

size_t Usable(size_t bytes) { return std::clamp(bytes, kLeast, kMostCacheBytes); }

}  // namespace

size_t CacheBytes() {
  const size_t bytes = given.load(std::memory_order_relaxed);
  if (bytes != 0) return bytes;
  static const size_t own = [] {
    const size_t asked = AskCpu();
    return asked == 0 ? kUnknown : Usable(asked);
  }();
  return own;
}

}  // namespace lanewise::kernels::matmul

namespace lanewise::kernels {

void SetMatmulCacheBytes(size_t bytes) { matmul::given = bytes == 0 ? 0 : matmul::Usable(bytes); }

size_t MatmulCacheBytes() { return matmul::given; }

}  // namespace lanewise::kernels
