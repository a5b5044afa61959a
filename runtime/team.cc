#include "runtime/team.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime/parallel.h"

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace lanewise::runtime {
namespace {

// As long as what lies between two tokens of a small model.
constexpr std::chrono::microseconds kPatience{200};
// Then others may have the core between two looks.
constexpr std::chrono::microseconds kSelfish{50};

void Pause() {
#if defined(__SSE2__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

// Waiting for what another core does soon.
class Wait {
 public:
  // Some pauses; false when patience is at its end.
  bool Once() {
    using Clock = std::chrono::steady_clock;
    for (int i = 0; i < 16; ++i) Pause();
    const Clock::time_point now = Clock::now();
    if (begin_ == Clock::time_point()) begin_ = now;
    if (now - begin_ > kSelfish) std::this_thread::yield();
    return now - begin_ < kPatience;
  }

 private:
  std::chrono::steady_clock::time_point begin_;
};

thread_local bool in_loop = false;

// Teams without a scheduler, linked by next_idle_.
std::mutex idle_mutex;
Team* idle = nullptr;

}  // namespace

Team::Handle Team::Take(size_t members) {
  const std::lock_guard<std::mutex> lock(idle_mutex);
  for (Team** place = &idle; *place != nullptr; place = &(*place)->next_idle_) {
    Team* team = *place;
    if (team->members_ != members) continue;
    *place = team->next_idle_;
    --team->elsewhere_;
    return Handle(team);
  }
  return Handle(new Team(members));
}

void Team::Dismiss::operator()(Team* team) const {
  ++team->elsewhere_;
  const std::lock_guard<std::mutex> lock(idle_mutex);
  team->next_idle_ = idle;
  idle = team;
}

Team::Team(size_t members)
    : members_(members), present_(std::make_unique<std::atomic<bool>[]>(members + 1)) {}

void Team::Work(size_t worker) {
  const ScopedFlushToZero flush;
  in_loop = true;
  for (size_t task; (task = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) {
    try {
      (*body_)(task, worker);
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
      next_.store(tasks_, std::memory_order_relaxed);
    }
  }
  in_loop = false;
}

bool Team::Run(size_t tasks, Body body, FunctionRef<void(size_t member)> wake) {
  if (in_loop || taken_.exchange(true, std::memory_order_acquire)) return false;
  body_ = &body;
  tasks_ = tasks;
  failed_ = false;
  next_.store(0, std::memory_order_relaxed);
  const uint64_t loop = loop_.load(std::memory_order_relaxed) + 1;
  loop_.store(loop);
  for (size_t member = 1; member <= std::min(members_, tasks - 1); ++member) {
    if (present_[member].exchange(true)) continue;
    try {
      wake(member);
    } catch (...) {  // no memory: the loop gets done without
      present_[member].store(false, std::memory_order_release);
    }
  }
  Work(0);
  loop_.store(loop + 1);
  for (Wait wait; inside_.load() != 0;) wait.Once();
  const std::exception_ptr error = std::exchange(error_, nullptr);
  taken_.store(false, std::memory_order_release);
  if (error) std::rethrow_exception(error);
  return true;
}

void Team::Member(size_t member) {
  uint64_t loop = 0, done = 0;
  const auto another = [&] {
    loop = loop_.load();
    return loop % 2 == 1 && loop != done;
  };
  do {
    for (Wait wait;;) {
      if (another()) {
        inside_.fetch_add(1);
        if (loop_.load() == loop) Work(member);
        inside_.fetch_sub(1, std::memory_order_release);
        done = loop;
        wait = Wait();
      } else if (elsewhere_.load(std::memory_order_relaxed) != 0 || !wait.Once()) {
        break;
      }
    }
    present_[member].store(false);
    // A loop that has begun meanwhile did not call this member, which was present.
  } while (another() && !present_[member].exchange(true));
}

}  // namespace lanewise::runtime
