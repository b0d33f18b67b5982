// SPDX-License-Identifier: Apache-2.0
#include "engine/thread_team.h"

#include <tbb/info.h>
#include <tbb/task_arena.h>
#include <tbb/task_group.h>

#include <algorithm>
#include <string>
#include <thread>

#include "engine/error.h"
#include "engine/tile_scope.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace terrace {
namespace {

// TBB hands a task to a worker, and its end back to whoever waits, through synchronisation that
// ThreadSanitizer cannot see when the library is not instrumented. These two say what TBB guarantees; they
// are nothing in other builds.
inline void publish_to_workers([[maybe_unused]] void* team) noexcept {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(team);
#endif
}
inline void receive_from_others([[maybe_unused]] void* team) noexcept {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(team);
#endif
}

inline void cpu_pause() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

// Polls before a waiting thread offers its core to others. With more threads than cores pure spinning would
// starve the very thread that is waited for; sched_yield costs about 0.5 us, so it starts only after ~20 us
// of polling.
constexpr unsigned kSpinsBeforeYield = 1024;

// Polls for the workers' chunks before the leader looks for one that nobody has claimed: about 1 us. Looking
// takes the line of the ticket from the worker that is about to claim.
constexpr unsigned kSpinsBeforeClaim = 16;

// A ticket that ends serve(): no phase has as many chunks.
constexpr std::uint64_t kStop = 0xffffffff;

class Backoff {
 public:
  void pause() noexcept {
    if (++spins_ < kSpinsBeforeYield) {
      cpu_pause();
    } else {
      TileScope::release();
      std::this_thread::yield();
    }
  }
  void reset() noexcept { spins_ = 0; }

 private:
  unsigned spins_ = 0;
};

/// Clock readings of a team that keeps times; nothing for one that does not.
class Stopwatch {
 public:
  explicit Stopwatch(PhaseTimes* times) noexcept : times_(times) {
    if (times_) start_ = PhaseTimes::Clock::now();
  }
  void chunks_done() noexcept {
    if (times_) times_->add_busy(PhaseTimes::Clock::now() - start_);
  }
  void phase_done() noexcept {
    if (times_) times_->add_phase(PhaseTimes::Clock::now() - start_);
  }

 private:
  PhaseTimes* times_;
  PhaseTimes::Clock::time_point start_;
};

}  // namespace

struct ThreadTeam::Impl {
  // TBB has no more workers than the process has cores and prints a warning when asked for more. A team may
  // be larger; its chunks are then shared by those who come.
  explicit Impl(unsigned n_threads)
      : concurrency(std::min(static_cast<int>(n_threads), tbb::info::default_concurrency())),
        arena(concurrency, 1) {}
  int concurrency;
  tbb::task_arena arena;
  tbb::task_group group;
};

ThreadTeam::ThreadTeam(unsigned n_threads) : n_threads_(n_threads) {
  TERRACE_CHECK(n_threads >= 1 && n_threads <= 1024, kBadArgument,
                "number of threads must be between 1 and 1024, found " + std::to_string(n_threads));
  if (n_threads > 1) impl_ = std::make_unique<Impl>(n_threads);
}

ThreadTeam::~ThreadTeam() = default;

ThreadTeam::Region::Region(ThreadTeam& team) : team_(team) {
  if (team_.depth_ == 0 && team_.impl_) team_.start();
  ++team_.depth_;
}

ThreadTeam::Region::~Region() {
  if (--team_.depth_ == 0 && team_.impl_) team_.stop();
}

void ThreadTeam::start() {
  ticket_.store(std::uint64_t{++epoch_} << 32, std::memory_order_relaxed);
  publish_to_workers(this);
  try {
    impl_->arena.execute([this] {
      for (int i = 1; i < impl_->concurrency; ++i) impl_->group.run([this] { serve(); });
    });
  } catch (...) {  // no memory for a task
    stop();        // those that have begun
    throw;
  }
  open_ = true;
}

void ThreadTeam::stop() {
  open_ = false;
  ticket_.store(std::uint64_t{++epoch_} << 32 | kStop, std::memory_order_release);
  impl_->arena.execute([this] { impl_->group.wait(); });
  receive_from_others(this);
}

void ThreadTeam::set_phase_times(PhaseTimes* times) noexcept {
  TERRACE_DCHECK(depth_ == 0);
  times_ = times;
}

PhaseTimes::Clock::time_point ThreadTeam::Prelude::now() const noexcept {
  return team_.times_ ? PhaseTimes::Clock::now() : PhaseTimes::Clock::time_point();
}

void ThreadTeam::Prelude::wait() const noexcept {
  Backoff backoff;
  while (!done_.load(std::memory_order_acquire)) backoff.pause();
}

void ThreadTeam::Prelude::leave_out(std::uint32_t chunk, PhaseTimes::Clock::time_point start) const noexcept {
  if (!team_.times_ || !team_.open_) return;
  const auto spent = now() - start;
  chunk == 0 ? team_.times_->leave_out(spent, spent) : team_.times_->add_busy(-spent);
}

void ThreadTeam::publish_and_wait(Call call, const void* context, std::uint32_t n_chunks) noexcept {
  TERRACE_DCHECK(n_chunks <= kMaxChunks);
  Stopwatch stopwatch(times_);
  const std::uint32_t before = done_.load(std::memory_order_relaxed);
  call_ = call;
  context_ = context;
  ++epoch_;  // a late worker cannot win a claim that belongs to a newer epoch
  constexpr std::uint32_t kOfLeader = 1;
  ticket_.store(std::uint64_t{epoch_} << 32 | std::uint64_t{n_chunks} << 16 | kOfLeader,
                std::memory_order_release);
  call(context, 0);
  std::uint32_t of_workers = n_chunks - kOfLeader;
  const auto finished = [&] { return done_.load(std::memory_order_acquire) - before == of_workers; };
  const bool one_each = n_chunks <= n_threads_;
  if (!one_each) of_workers -= work(epoch_);
  stopwatch.chunks_done();
  if (one_each) {
    for (unsigned spins = 0; spins < kSpinsBeforeClaim && !finished(); ++spins) cpu_pause();
    if (!finished()) {  // a worker may not have come
      Stopwatch of_claimed(times_);
      of_workers -= work(epoch_);
      of_claimed.chunks_done();
    }
  }
  Backoff backoff;
  while (!finished()) backoff.pause();
  stopwatch.phase_done();
}

/// Claims and runs chunks of a phase until none is left; returns how many.
std::uint32_t ThreadTeam::work(std::uint32_t epoch) noexcept {
  std::uint32_t n = 0;
  std::uint64_t t = ticket_.load(std::memory_order_acquire);
  while (t >> 32 == epoch && (t & 0xffff) < (t >> 16 & 0xffff)) {
    if (!ticket_.compare_exchange_weak(t, t + 1, std::memory_order_acq_rel, std::memory_order_acquire))
      continue;
    call_(context_, static_cast<std::uint32_t>(t & 0xffff));
    ++n;
    t = ticket_.load(std::memory_order_acquire);
  }
  return n;
}

void ThreadTeam::serve() noexcept {
  receive_from_others(this);
  const FlushDenormals float_mode;
  const TileScope tiles;
  Backoff backoff;
  std::uint32_t seen = 0;
  for (;;) {
    const std::uint64_t t = ticket_.load(std::memory_order_acquire);
    if ((t & kStop) == kStop) break;
    const auto epoch = static_cast<std::uint32_t>(t >> 32);
    if (epoch != seen && (t & 0xffff) < (t >> 16 & 0xffff)) {
      Stopwatch stopwatch(times_);
      const std::uint32_t n = work(epoch);
      if (n > 0) done_.fetch_add(n, std::memory_order_release);
      stopwatch.chunks_done();
      seen = epoch;
      backoff.reset();
    } else {
      backoff.pause();
    }
  }
  publish_to_workers(this);
}

}  // namespace terrace
