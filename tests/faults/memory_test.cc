// Every allocation of a start and of a training step fails once: it arrives as an exception, nothing leaks, and the same
// thing done again succeeds.
#include <doctest/doctest.h>

#include <new>

#include "model/error.h"
#include "runtime/arena.h"
#include "tests/faults/cycle.h"
#include "tests/support/counting_new.h"
#include "tests/support/memory_files.h"
#include "tests/support/model_files.h"

namespace lanewise::testing {
namespace {

// True where the cycle ran; false where memory was short and it said so.
bool Succeeds(const Cycle& cycle, MemoryFiles& files) {
  Saves saves;
  try {
    cycle.Run(files, &saves);
  } catch (const std::bad_alloc&) {
    return false;
  } catch (const runtime::OutOfMemory& error) {
    CHECK(Contains(error.what(), "out of memory: "));
    CHECK(Contains(error.what(), " MiB"));
    CHECK(error.bytes() > 0);
    return false;
  }
  return true;
}

struct SwitchOff {
  ~SwitchOff() {
    FailAllocationAfter(0);
    runtime::FailArenaAfter(0);
  }
};

TEST_CASE("every large block is refused once") {
  const SwitchOff off;
  for (const std::string& kind : kKinds) {
    for (const size_t threads : {1, 2}) {
      const Cycle cycle(kind, threads);
      size_t k = 1;
      for (bool succeeded = false; !succeeded; ++k) {
        CAPTURE(k);
        MemoryFiles files;
        runtime::FailArenaAfter(k);
        succeeded = Succeeds(cycle, files);
        runtime::FailArenaAfter(0);
        if (!succeeded) CHECK(Succeeds(cycle, files));
        REQUIRE(k < 1000);
      }
      CHECK(k > 10);
      MESSAGE(kind, ", ", threads, " threads: ", k - 2, " blocks");
    }
  }
}

TEST_CASE("every small allocation fails once") {
  const SwitchOff off;
  for (const std::string& kind : kKinds) {
    const Cycle cycle(kind, 1);
    for (int warm_up = 0; warm_up < 2; ++warm_up) {
      MemoryFiles files;
      REQUIRE(Succeeds(cycle, files));
    }
    size_t total;
    {
      MemoryFiles files;
      const size_t before = AllocationCount();
      REQUIRE(Succeeds(cycle, files));
      total = AllocationCount() - before;
    }
    // Primes: no two samples meet the same allocations of a loop.
    const size_t stride = Soak() ? 7 : 211;
    size_t failed = 0;
    for (size_t k = 1; k <= total; k += k < 200 ? 1 : stride) {
      CAPTURE(k);
      const size_t live = LiveAllocations();
      {
        MemoryFiles files;
        FailAllocationAfter(k);
        const bool succeeded = Succeeds(cycle, files);
        FailAllocationAfter(0);
        failed += succeeded ? 0 : 1;
        CHECK(files.open_files() == 0);
        CHECK(Succeeds(cycle, files));
      }
      CHECK(LiveAllocations() == live);
    }
    MESSAGE(kind, ": ", total, " allocations, ", failed, " of them failed once");
  }
}

}  // namespace
}  // namespace lanewise::testing
