// Counts every call of operator new in a test program that links this file.
#include "tests/support/counting_new.h"

#include <atomic>
#include <cstdlib>
#include <new>
#include <utility>

namespace {
std::atomic<size_t> allocations{0};
std::atomic<lanewise::testing::RefuseAllocation> refuse_allocation{nullptr};
thread_local bool asking = false;

bool Refused() {
  const lanewise::testing::RefuseAllocation refuse = refuse_allocation.load();
  if (refuse == nullptr || std::exchange(asking, true)) return false;
  const bool refused = refuse();
  asking = false;
  return refused;
}

void* AllocateOrNull(size_t size) noexcept {
  ++allocations;
  return Refused() ? nullptr : std::malloc(size == 0 ? 1 : size);
}

void* Allocate(size_t size) {
  if (void* p = AllocateOrNull(size)) return p;
  throw std::bad_alloc();
}
}  // namespace

namespace lanewise::testing {
size_t AllocationCount() { return allocations.load(); }
void SetRefuseAllocation(RefuseAllocation refuse) { refuse_allocation = refuse; }
}  // namespace lanewise::testing

void* operator new(size_t size) { return Allocate(size); }
void* operator new[](size_t size) { return Allocate(size); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return AllocateOrNull(size); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return AllocateOrNull(size); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
