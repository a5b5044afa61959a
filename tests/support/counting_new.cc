// Counts every call of operator new in a test program that links this file.
#include "tests/support/counting_new.h"

#include <dlfcn.h>
#include <execinfo.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string_view>

namespace {
std::atomic<size_t> allocations{0};
std::atomic<size_t> live{0};
std::atomic<size_t> fail_after{0};

// Whether the JSON library allocates. Its destructors do, and must not throw: failing there would only show that the
// process ends. Its constructors leak what they have made so far. Known where the program exports its symbols.
bool InJsonLibrary() {
  void* frames[8];
  const int depth = backtrace(frames, 8);
  for (int i = 2; i < depth; ++i) {
    Dl_info info;
    if (dladdr(frames[i], &info) == 0 || info.dli_sname == nullptr) continue;
    const std::string_view name = info.dli_sname;
    // The last four inline its constructors and destructors.
    for (const char* part : {"8nlohmann", "6ToJson", "6Config", "14TrainingRecord4Save", "12ManifestText"}) {
      if (name.find(part) != name.npos) return true;
    }
  }
  return false;
}

bool FailNow() {
  size_t k = fail_after.load();
  if (k == 1 && InJsonLibrary()) return false;  // the next one, then
  while (k > 0 && !fail_after.compare_exchange_weak(k, k - 1)) {
  }
  return k == 1;
}

void* Allocate(size_t size) {
  ++allocations;
  if (FailNow()) throw std::bad_alloc();
  if (void* p = std::malloc(size == 0 ? 1 : size)) {
    ++live;
    return p;
  }
  throw std::bad_alloc();
}

void Free(void* p) noexcept {
  if (p != nullptr) --live;
  std::free(p);
}
}  // namespace

namespace lanewise::testing {
size_t AllocationCount() { return allocations.load(); }
size_t LiveAllocations() { return live.load(); }
void FailAllocationAfter(size_t k) { fail_after = k; }
}  // namespace lanewise::testing

void* operator new(size_t size) { return Allocate(size); }
void* operator new[](size_t size) { return Allocate(size); }
void operator delete(void* p) noexcept { Free(p); }
void operator delete[](void* p) noexcept { Free(p); }
void operator delete(void* p, size_t) noexcept { Free(p); }
void operator delete[](void* p, size_t) noexcept { Free(p); }
