#include "runtime/parallel.h"

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/info.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/partitioner.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#define LANEWISE_HAVE_MXCSR 1
#endif

#include "runtime/container.h"
#include "runtime/team.h"

namespace lanewise::runtime {

namespace {

#if defined(LANEWISE_HAVE_MXCSR)
constexpr unsigned kFlushBits = 0x8040;  // FTZ and DAZ
unsigned long long ReadMode() { return _mm_getcsr(); }
void WriteMode(unsigned long long mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
constexpr unsigned long long kFlushBits = 1ULL << 24;  // FPCR.FZ
unsigned long long ReadMode() {
  unsigned long long mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
void WriteMode(unsigned long long mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
constexpr unsigned long long kFlushBits = 0;
unsigned long long ReadMode() { return 0; }
void WriteMode(unsigned long long) {}
#endif

}  // namespace

ScopedFlushToZero::ScopedFlushToZero() : saved_(ReadMode()) {
  if ((saved_ & kFlushBits) != kFlushBits) WriteMode(saved_ | kFlushBits);
}

ScopedFlushToZero::~ScopedFlushToZero() {
  if ((saved_ & kFlushBits) != kFlushBits) WriteMode(saved_);
}

size_t AvailableThreads() {
  const auto threads = static_cast<size_t>(oneapi::tbb::info::default_concurrency());
  const std::optional<double> cores = ReadContainerLimits().cores;
  if (!cores) return threads;
  return std::clamp<size_t>(static_cast<size_t>(std::ceil(*cores)), 1, threads);
}

namespace {

// oneTBB's own limit is the threads of the machine. Of several controls the lowest counts, so there
// is one for all schedulers, and it is only ever lifted.
void AllowThreads(size_t threads) {
  using Control = oneapi::tbb::global_control;
  static std::mutex mutex;
  static std::unique_ptr<Control> control;
  const std::lock_guard<std::mutex> lock(mutex);
  if (threads <= Control::active_value(Control::max_allowed_parallelism)) return;
  control = std::make_unique<Control>(Control::max_allowed_parallelism, threads);
}

}  // namespace

struct Scheduler::Impl {
  explicit Impl(size_t threads)
      : arena(static_cast<int>(threads), /*reserved_for_masters=*/1),
        team(Team::Take(threads - 1)) {
    AllowThreads(threads);
    arena.initialize();
  }
  oneapi::tbb::task_arena arena;
  Team::Handle team;
};

Scheduler::Scheduler(size_t threads) : threads_(threads == 0 ? AvailableThreads() : threads) {
  if (threads_ > 1) impl_ = std::make_unique<Impl>(threads_);
}

Scheduler::~Scheduler() = default;

void Scheduler::Run(size_t tasks, FunctionRef<void(size_t, size_t)> fn) const {
  const auto wake = [this](size_t member) {
    impl_->arena.enqueue([team = impl_->team.get(), member] { team->Member(member); });
  };
  if (impl_->team->Run(tasks, fn, wake)) return;
  // The team has a loop already: this one is inside of it, or another thread's.
  const Team::Elsewhere elsewhere(*impl_->team);
  impl_->arena.execute([&] {
    // Isolation keeps a thread that waits here from picking up an unrelated task that would use the
    // same worker's scratch memory.
    oneapi::tbb::this_task_arena::isolate([&] {
      oneapi::tbb::parallel_for(
          size_t{0}, tasks,
          [&](size_t task) {
            const ScopedFlushToZero flush;
            fn(task, static_cast<size_t>(oneapi::tbb::this_task_arena::current_thread_index()));
          },
          oneapi::tbb::simple_partitioner());
    });
  });
}

void Parallel::For(size_t tasks, FunctionRef<void(size_t task, size_t worker)> fn) const {
  if (scheduler_ == nullptr || tasks <= 1) {
    const ScopedFlushToZero flush;
    for (size_t task = 0; task < tasks; ++task) fn(task, 0);
    return;
  }
  scheduler_->Run(tasks, fn);
}

}  // namespace lanewise::runtime
