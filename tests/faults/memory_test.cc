// Memory is refused to the library: every block of an arena, and every operator new of a whole
// cycle, one at a time. It arrives as an exception that says how much was wanted, no file stays
// open, and the run goes on to the same bits.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <map>
#include <new>

#include "runtime/arena.h"
#include "runtime/parallel.h"
#include "tests/faults/cycle.h"
#include "tests/support/counting_new.h"
#include "tests/support/memory_files.h"
#include "tests/support/model_files.h"

namespace lanewise::testing {
namespace {

// True where the cycle ran; false where a block was refused and it said so.
bool RunsWithBlocks(const Cycle& cycle, MemoryFiles& files) {
  Saves saves;
  try {
    cycle.Run(files, &saves);
  } catch (const runtime::OutOfMemory& error) {
    CHECK(Contains(error.what(), "out of memory: "));
    CHECK(Contains(error.what(), " MiB"));
    CHECK(error.bytes() > 0);
    return false;
  }
  return true;
}

TEST_CASE("every large block is refused once") {
  for (const std::string& kind : kKinds) {
    for (const size_t threads : {1, 2}) {
      const Cycle cycle(kind, threads);
      size_t k = 1;
      for (bool succeeded = false; !succeeded; ++k) {
        CAPTURE(k);
        MemoryFiles files;
        runtime::FailArenaAfter(k);
        succeeded = RunsWithBlocks(cycle, files);
        runtime::FailArenaAfter(0);
        CHECK(files.open_files() == 0);
        if (!succeeded) CHECK(RunsWithBlocks(cycle, files));
        REQUIRE(k < 1000);
      }
      CHECK(k > 10);
      MESSAGE(kind, ", ", threads, " threads: ", k - 2, " blocks");
    }
  }
}

// How a process ended to which one allocation was refused.
enum End {
  kThrown = 40,      // an exception arrived, and the run then went on to its end
  kUnnoticed = 41,   // the C++ library did without
  kTerminated = 42,  // the JSON library allocates in its destructors, which must not throw
  kWrong = 43,
};

// Each allocation is refused to a copy of this process, which then has all its state. As many
// copies run at once as there are processors.
struct Copies {
  size_t calls = 0;
  size_t stride = 1;
  size_t running = 0;
  bool is_copy = false;
  std::map<int, size_t> ends;
};
Copies copies;

void WaitForACopy() {
  int status = 0;
  wait(&status);
  --copies.running;
  ++copies.ends[WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)];
}

bool RefuseToACopy() {
  if (copies.is_copy || ++copies.calls % copies.stride != 0) return false;
  if (copies.running == runtime::AvailableThreads()) WaitForACopy();
  if (fork() == 0) {
    copies.is_copy = true;
    alarm(60);
    return true;
  }
  ++copies.running;
  return false;
}

void EndTerminatedCopy() {
  if (!copies.is_copy) abort();
  try {
    std::rethrow_exception(std::current_exception());
  } catch (const std::bad_alloc&) {
    _exit(kTerminated);
  } catch (...) {
    _exit(kWrong);
  }
}

// The copies end in here; the process itself comes back.
void RefuseEach(const Cycle& cycle, const std::vector<float>& expected) {
  MemoryFiles files;
  Saves saves;
  bool thrown = false;
  SetRefuseAllocation(RefuseToACopy);
  try {
    // Not within CHECK, which would catch what is thrown.
    const bool same = cycle.Run(files, &saves) == expected;
    if (!same && copies.is_copy) _exit(kWrong);
    CHECK(same);
  } catch (const std::bad_alloc&) {
    thrown = true;
  } catch (...) {
    if (copies.is_copy) _exit(kWrong);
    throw;
  }
  SetRefuseAllocation(nullptr);
  if (!copies.is_copy) return;
  try {
    const bool goes_on = files.open_files() == 0 && cycle.Run(files, &saves) == expected;
    _exit(!goes_on ? kWrong : thrown ? kThrown : kUnnoticed);
  } catch (...) {
    _exit(kWrong);
  }
}

TEST_CASE("every small allocation is refused once") {
  const std::terminate_handler before = std::set_terminate(EndTerminatedCopy);
  for (const std::string& kind : kKinds) {
    const Cycle cycle(kind, 1);
    MemoryFiles files;
    Saves saves;
    const std::vector<float> expected = cycle.Run(files, &saves);
    copies = {};
    copies.stride = Soak() ? 1 : 89;  // a prime: no two samples of a loop meet the same place
    std::fflush(nullptr);
    RefuseEach(cycle, expected);
    while (copies.running > 0) WaitForACopy();
    size_t total = 0;
    for (const auto& [end, count] : copies.ends) {
      CAPTURE(end);
      CHECK((end == kThrown || end == kUnnoticed || end == kTerminated));
      total += count;
    }
    CHECK(total == copies.calls / copies.stride);
    CHECK(copies.ends[kThrown] > total / 2);
    MESSAGE(kind, ": ", copies.calls, " allocations, ", total, " refused: ", copies.ends[kThrown],
            " exceptions, ", copies.ends[kUnnoticed], " unnoticed, ", copies.ends[kTerminated],
            " in destructors of the JSON library");
  }
  std::set_terminate(before);
}

}  // namespace
}  // namespace lanewise::testing
