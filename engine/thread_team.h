// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "engine/float_mode.h"
#include "engine/phase_times.h"
#include "engine/task_ref.h"

namespace terrace {

/// Fork-join with sub-microsecond phases inside one TBB region.
///
/// While a Region is open, up to n_threads - 1 TBB workers poll one cache line. A phase publishes there what
/// to call and a word {epoch, number of chunks, next chunk}; the leader takes the first chunk, then all claim
/// chunks by compare-exchange and workers count the finished ones. The leader waits for chunks, never for
/// threads: progress needs no worker at all, so a worker that never arrives, or that is descheduled between
/// chunks, costs time but not the result.
///
/// Chunks own their outputs, so results do not depend on who ran them.
/// Cost: about 0.9 us per phase with warm workers, 2 threads (docs/performance.md, "Threads").
class ThreadTeam {
 public:
  /// Throws Error{kBadArgument} unless 1 <= n_threads <= 1024.
  explicit ThreadTeam(unsigned n_threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  unsigned size() const noexcept { return n_threads_; }

  /// From now on counts and times phases in `times`; null stops that. Only while no region is open; `times`
  /// must outlive the team or be unset. Phases that the leader runs alone are not counted.
  void set_phase_times(PhaseTimes* times) noexcept;

  /// Holds the workers. Opening an already open team nests: only the outermost Region starts and ends the TBB
  /// region. No TBB algorithm and no oneDNN call may run inside (the workers are busy serving).
  class Region {
   public:
    explicit Region(ThreadTeam& team);
    ~Region();
    Region(const Region&) = delete;
    Region& operator=(const Region&) = delete;

   private:
    FlushDenormals float_mode_;
    ThreadTeam& team_;
  };

  /// A task of the leader that the chunks of a phase need done. Chunk 0 does it first; threads with others
  /// get ready meanwhile, and go on at once when it is done.
  class Prelude {
   public:
    Prelude(ThreadTeam& team, TaskRef task) noexcept : team_(team), task_(task) {}
    /// For every chunk, before anything else. `get_ready` must not need what the task makes.
    template <class F>
    void pass(std::uint32_t chunk, F&& get_ready) noexcept {
      const PhaseTimes::Clock::time_point start = now();
      if (chunk == 0) {
        task_();
        done_.store(true, std::memory_order_release);
      } else {
        get_ready();
        wait();
      }
      leave_out(chunk, start);
    }

   private:
    PhaseTimes::Clock::time_point now() const noexcept;
    void wait() const noexcept;
    void leave_out(std::uint32_t chunk, PhaseTimes::Clock::time_point start) const noexcept;

    ThreadTeam& team_;
    TaskRef task_;
    std::atomic<bool> done_{false};
  };

  static constexpr std::uint32_t kMaxChunks = 65534;

  /// Runs fn(chunk) once for every chunk < n_chunks <= kMaxChunks, chunk 0 always on the leader. fn must not
  /// throw, open a phase or use TBB; only chunk 0 may take from a Workspace. Without an open region, or with
  /// one chunk, the leader runs all of it.
  template <class F>
  void run(std::uint32_t n_chunks, F&& fn) noexcept {
    if (n_chunks <= 1 || !open_) {
      for (std::uint32_t chunk = 0; chunk < n_chunks; ++chunk) fn(chunk);
      return;
    }
    const auto call = [](const void* f, std::uint32_t chunk) noexcept {
      (*static_cast<std::remove_reference_t<F>*>(const_cast<void*>(f)))(chunk);
    };
    publish_and_wait(call, &fn, n_chunks);
  }

 private:
  struct Impl;  // the TBB side, kept out of this header

  using Call = void (*)(const void* context, std::uint32_t chunk) noexcept;

  void start();
  void stop();
  void publish_and_wait(Call call, const void* context, std::uint32_t n_chunks) noexcept;
  std::uint32_t work(std::uint32_t epoch) noexcept;
  void serve() noexcept;

  // A line that travels between two cores takes 0.1 to 0.2 us, several times per phase: what the leader
  // publishes is one line, what workers report another, and what only the leader needs is on neither.
  alignas(64) std::atomic<std::uint64_t> ticket_{0};  // epoch : 32 | n_chunks : 16 | next chunk : 16
  Call call_ = nullptr;
  const void* context_ = nullptr;
  alignas(64) std::atomic<std::uint32_t> done_{0};  // chunks that workers have finished, ever; may wrap
  alignas(64) std::uint32_t epoch_ = 0;
  PhaseTimes* times_ = nullptr;
  unsigned n_threads_;
  unsigned depth_ = 0;
  bool open_ = false;
  std::unique_ptr<Impl> impl_;
};

}  // namespace terrace
