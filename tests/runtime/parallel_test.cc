// The scheduler: every task once, workers in range and never shared, nesting, exceptions.
#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
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

TEST_CASE("an exception ends the loop and reaches the caller") {
  const Scheduler scheduler(2);
  CHECK_THROWS_AS(scheduler.All().For(100,
                                      [](size_t task, size_t) {
                                        if (task == 37) throw std::runtime_error("task 37");
                                      }),
                  std::runtime_error);
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
