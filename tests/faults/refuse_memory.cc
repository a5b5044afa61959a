// Preloaded into the program: refuses it one allocation (LANEWISE_REFUSE_NEW=K: the K-th operator
// new) or one block (LANEWISE_REFUSE_BLOCK=K: the K-th anonymous mapping). Only those between the
// begin and the end of main() count: before that the C++ library itself ends the process.
// LANEWISE_REFUSE_COUNT=1 prints how many there were.
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace {

using MainFunction = int (*)(int, char**, char**);

std::atomic<bool> in_main{false};
std::atomic<size_t> allocations{0}, blocks{0};
size_t refused_allocation = 0, refused_block = 0;
MainFunction real_main = nullptr;

size_t FromEnvironment(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::strtoull(text, nullptr, 10);
}

int CountingMain(int argc, char** argv, char** environment) {
  refused_allocation = FromEnvironment("LANEWISE_REFUSE_NEW");
  refused_block = FromEnvironment("LANEWISE_REFUSE_BLOCK");
  in_main = true;
  const int code = real_main(argc, argv, environment);
  in_main = false;
  if (FromEnvironment("LANEWISE_REFUSE_COUNT") != 0) {
    dprintf(2, "\ncounted %zu %zu\n", allocations.load(), blocks.load());
  }
  return code;
}

}  // namespace

void* operator new(size_t size) {
  if (in_main && ++allocations == refused_allocation) throw std::bad_alloc();
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}

// The allocators call the kernel by another way than this one.
// NOLINTNEXTLINE(readability-identifier-naming)
extern "C" void* mmap(void* address, size_t size, int protection, int flags, int file,
                      off_t offset) noexcept {
  if (in_main && (flags & MAP_ANONYMOUS) != 0 && ++blocks == refused_block) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  const auto memory = syscall(SYS_mmap, address, size, protection, flags, file, offset);
  return reinterpret_cast<void*>(memory);  // NOLINT(performance-no-int-to-ptr)
}

// NOLINTNEXTLINE(readability-identifier-naming, bugprone-reserved-identifier)
extern "C" int __libc_start_main(MainFunction main, int argc, char** argv, void (*init)(),
                                 void (*fini)(), void (*end)(), void* stack) {
  real_main = main;
  using Start = int (*)(MainFunction, int, char**, void (*)(), void (*)(), void (*)(), void*);
  const auto start = reinterpret_cast<Start>(dlsym(RTLD_NEXT, "__libc_start_main"));
  return start(CountingMain, argc, argv, init, fini, end, stack);
}
