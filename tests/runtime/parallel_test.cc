// The scheduler: every task once, workers in range and never shared, nesting, exceptions.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "runtime/parallel.h"

namespace lanewise::runtime {
namespace {

TEST_CASE("each task runs once, and no worker is used twice at a time") {
  for (const size_t threads : {1, 2, 3, 8}) {
    const Scheduler scheduler(threads);
    CHECK(scheduler.threads() == threads);
    std::vector<std::atomic<int>> runs(1000);
    std::vector<std::atomic<int>> busy(threads);
    std::atomic<bool> clash{false};
    scheduler.All().For(runs.size(), [&](size_t task, size_t worker) {
      if (worker >= threads || busy[worker].fetch_add(1) != 0) clash = true;
      ++runs[task];
      if (worker < threads) --busy[worker];
    });
    CHECK_FALSE(clash.load());
    for (const auto& n : runs) CHECK(n.load() == 1);
  }
}

TEST_CASE("loops may be nested") {
  const Scheduler scheduler(4);
  std::atomic<int> sum{0};
  scheduler.All().For(6, [&](size_t, size_t) {
    scheduler.All().For(10, [&](size_t task, size_t) { sum += static_cast<int>(task); });
  });
  CHECK(sum.load() == 6 * 45);
}

// Workers wait awake for the next loop, and sleep when it is late: with and without pauses.
TEST_CASE("loops one after the other see what the one before wrote") {
  for (const size_t threads : {2, 3, 8}) {
    const Scheduler scheduler(threads);
    std::vector<uint32_t> values(37, 1);
    for (uint32_t loop = 0; loop < 2000; ++loop) {
      if (loop % 400 == 399) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      scheduler.All().For(values.size() - loop % 3, [&](size_t task, size_t) {
        values[task] = values[task] * 1664525 + static_cast<uint32_t>(task) + loop;
      });
    }
    std::vector<uint32_t> expected(values.size(), 1);
    for (uint32_t loop = 0; loop < 2000; ++loop) {
      for (uint32_t task = 0; task < expected.size() - loop % 3; ++task) {
        expected[task] = expected[task] * 1664525 + task + loop;
      }
    }
    CHECK(values == expected);
  }
}

TEST_CASE("a loop ends after its last task") {
  for (const size_t threads : {2, 8}) {
    const Scheduler scheduler(threads);
    std::atomic<int> running{0};
    int late = 0;
    for (int loop = 0; loop < 100; ++loop) {
      scheduler.All().For(threads + 1, [&](size_t task, size_t) {
        ++running;
        std::this_thread::sleep_for(std::chrono::microseconds(20 + 30 * task));
        --running;
      });
      late += running.load();
    }
    CHECK(late == 0);
  }
}

TEST_CASE("several threads use one scheduler, which then ends") {
  for (int round = 0; round < 20; ++round) {
    std::optional<Scheduler> scheduler(3);
    std::atomic<int> sum{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; ++i) {
      callers.emplace_back([&] {
        for (int loop = 0; loop < 50; ++loop) {
          scheduler->All().For(5, [&](size_t task, size_t) {
            sum += static_cast<int>(task);
            if (task == 4) scheduler->All().For(3, [&](size_t, size_t) { ++sum; });
          });
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
    scheduler.reset();
    CHECK(sum.load() == 3 * 50 * (10 + 3));
  }
}

// Whether the tasks of a loop, one for each thread, all run at once.
bool RunsOnAllThreads(const Scheduler& scheduler) {
  std::atomic<size_t> running{0};
  std::atomic<bool> all{true};
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  scheduler.All().For(scheduler.threads(), [&](size_t, size_t) {
    ++running;
    while (running.load() < scheduler.threads() && all.load()) {
      if (std::chrono::steady_clock::now() > end) all = false;
      std::this_thread::yield();
    }
  });
  return all.load();
}

TEST_CASE("schedulers that live at the same time have all their threads") {
  const size_t more = AvailableThreads() + 2;
  std::optional<Scheduler> few(2);
  const Scheduler many(more), most(2 * more);
  for (int round = 0; round < 3; ++round) {
    CHECK(RunsOnAllThreads(many));
    CHECK(RunsOnAllThreads(most));
    CHECK(RunsOnAllThreads(*few));
  }
  few.reset();
  CHECK(RunsOnAllThreads(most));
  CHECK(RunsOnAllThreads(many));
}

TEST_CASE("an exception ends the loop and reaches the caller, and the next loop runs") {
  const Scheduler scheduler(2);
  for (size_t bad = 0; bad < 100; ++bad) {
    CHECK_THROWS_AS(scheduler.All().For(100,
                                        [&](size_t task, size_t) {
                                          if (task == bad) throw std::runtime_error("a task");
                                        }),
                    std::runtime_error);
    std::atomic<int> runs{0};
    scheduler.All().For(10, [&](size_t, size_t) { ++runs; });
    CHECK(runs.load() == 10);
  }
}

TEST_CASE("denormal numbers are zero inside a loop, and come back after") {
  volatile float tiny = 1e-39F;
  const Scheduler scheduler(2);
  std::atomic<int> zeros{0};
  scheduler.All().For(64, [&](size_t, size_t) {
    volatile float half = tiny * 0.5F;
    if (half == 0.0F) ++zeros;
  });
  CHECK(zeros.load() == 64);
  volatile float half = tiny * 0.5F;
  CHECK(half > 0.0F);
}

}  // namespace
}  // namespace lanewise::runtime
