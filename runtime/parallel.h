// Where work runs: a fixed number of threads behind one loop. oneTBB is inside; no other header
// shows it.
#ifndef LANEWISE_RUNTIME_PARALLEL_H_
#define LANEWISE_RUNTIME_PARALLEL_H_

#include <cstddef>
#include <memory>

#include "runtime/function_ref.h"

namespace lanewise::runtime {

class Scheduler;

// The right to use some workers. Cheap to copy. Operations get one and cut their work into tasks
// whose number and content depend on shapes only, so that the bits are the same for any number of
// workers.
class Parallel {
 public:
  // Everything on the calling thread, in task order.
  Parallel() = default;

  // Calls fn(task, worker) once for each task in [0, tasks), and returns when all are done. Tasks
  // run concurrently in any order; `worker` < max_workers() is never used by two of them at once
  // and so indexes scratch memory. No allocation on the heap. An exception in fn ends the loop and
  // is rethrown.
  void For(size_t tasks, FunctionRef<void(size_t task, size_t worker)> fn) const;

  size_t max_workers() const { return workers_; }
  bool serial() const { return scheduler_ == nullptr; }

 private:
  friend class Scheduler;
  Parallel(const Scheduler* scheduler, size_t workers) : scheduler_(scheduler), workers_(workers) {}

  const Scheduler* scheduler_ = nullptr;
  size_t workers_ = 1;
};

// Owns the threads. One per program is enough; several may coexist.
class Scheduler {
 public:
  // threads = 0 takes every hardware thread that the process may use.
  explicit Scheduler(size_t threads = 0);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  size_t threads() const { return threads_; }
  // All threads; serial when there is only one.
  Parallel All() const { return threads_ == 1 ? Parallel() : Parallel(this, threads_); }

 private:
  friend class Parallel;
  struct Impl;
  void Run(size_t tasks, FunctionRef<void(size_t, size_t)> fn) const;

  size_t threads_;
  std::unique_ptr<Impl> impl_;
};

// Hardware threads that this process may run on: those of its affinity mask, and no more than its
// container has processor time for.
size_t AvailableThreads();

// Treats denormal numbers as zero while alive, on the calling thread; the former mode comes back
// after. Decayed recurrent states run through denormals, which cost a hundred times a normal
// operation.
class ScopedFlushToZero {
 public:
  ScopedFlushToZero();
  ~ScopedFlushToZero();
  ScopedFlushToZero(const ScopedFlushToZero&) = delete;
  ScopedFlushToZero& operator=(const ScopedFlushToZero&) = delete;

 private:
  unsigned long long saved_;
};

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_PARALLEL_H_
