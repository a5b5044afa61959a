// Workers that stay awake between loops. Inside of the scheduler; see parallel.h.
#ifndef LANEWISE_RUNTIME_TEAM_H_
#define LANEWISE_RUNTIME_TEAM_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>

#include "runtime/function_ref.h"

namespace lanewise::runtime {

// Waking a sleeping worker takes about 25 microseconds, as long as a whole loop of decoding: with a
// small model most of a token's time. So a worker that has helped with a loop waits for the next
// one awake, for a while. Each member is a task of oneTBB on one of its threads and goes back there
// when no loop comes, or when a loop that runs elsewhere (nested, or of another thread) needs it.
//
// A called member may come when the scheduler has ended, or never when the process ends: oneTBB
// does not say. So no team is destroyed; the next scheduler of as many threads takes it over, with
// members that are still to come.
class Team {
 public:
  using Body = FunctionRef<void(size_t task, size_t worker)>;

  struct Dismiss {
    void operator()(Team* team) const;
  };
  using Handle = std::unique_ptr<Team, Dismiss>;

  // `members` workers beside the caller. Safe from any thread.
  static Handle Take(size_t members);

  // A loop as Parallel::For says, the caller being worker 0. Members that sleep are called with
  // wake(member), which has to make some thread run Member(member); the loop does not wait for
  // them. False, and nothing done, if a loop of this team is running already.
  bool Run(size_t tasks, Body body, FunctionRef<void(size_t member)> wake);

  // What a member does, 1 <= member <= members. Returns after a while without a loop.
  void Member(size_t member);

  // While alive, members do not wait for loops: their threads have other work.
  class Elsewhere {
   public:
    explicit Elsewhere(Team& team) : team_(team) { ++team_.elsewhere_; }
    ~Elsewhere() { --team_.elsewhere_; }
    Elsewhere(const Elsewhere&) = delete;
    Elsewhere& operator=(const Elsewhere&) = delete;

   private:
    Team& team_;
  };

  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

 private:
  explicit Team(size_t members);
  void Work(size_t worker);

  const size_t members_;
  Team* next_idle_ = nullptr;
  std::unique_ptr<std::atomic<bool>[]> present_;  // [members + 1], called and not gone again
  std::atomic<bool> taken_{false};                // by the caller of the running loop
  std::atomic<int> elsewhere_{0};
  // The running loop, valid while open.
  const Body* body_ = nullptr;
  size_t tasks_ = 0;
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
  // Odd while a loop is open. A member counts itself in before it looks again whether the loop is
  // still open, and the caller closes the loop before it waits for the count to be zero: either the
  // member sees the end or the caller sees the member.
  alignas(64) std::atomic<uint64_t> loop_{0};
  alignas(64) std::atomic<size_t> inside_{0};
  alignas(64) std::atomic<size_t> next_{0};
};

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_TEAM_H_
