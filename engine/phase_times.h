// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace terrace {

/// What a thread team loses to synchronisation, measured while it holds one (ThreadTeam::set_phase_times).
///
/// A phase lasts from its publication to the end of its last chunk. A thread is busy in it from its first
/// chunk to its last; the rest is lost: noticing the phase, waiting for the others' last chunks, not arriving
/// at all. So
///
///   lost thread-seconds = n_threads * wall_seconds - busy_seconds
///
/// Cost: three clock readings per phase for the leader, two for a worker; one test of a pointer for a team
/// without.
class PhaseTimes {
 public:
  using Clock = std::chrono::steady_clock;

  /// Starts anew. Not while a region is open.
  void clear() noexcept {
    phases_ = 0;
    wall_ = {};
    busy_.store(0, std::memory_order_relaxed);
  }

  /// For the leader, at the end of each phase.
  void add_phase(Clock::duration wall) noexcept {
    ++phases_;
    wall_ += wall;
  }
  /// For what a thread spends within a phase on, or while, one thread works alone: not the phase's.
  void leave_out(Clock::duration wall, Clock::duration busy) noexcept {
    wall_ -= wall;
    add_busy(-busy);
  }
  /// For every thread, when it finds no more chunks.
  void add_busy(Clock::duration busy) noexcept { busy_.fetch_add(busy.count(), std::memory_order_relaxed); }

  std::uint64_t phases() const noexcept { return phases_; }
  double wall_seconds() const noexcept { return std::chrono::duration<double>(wall_).count(); }
  /// Of all threads together; complete when no region is open.
  double busy_seconds() const noexcept {
    return std::chrono::duration<double>(Clock::duration(busy_.load(std::memory_order_relaxed))).count();
  }

 private:
  std::uint64_t phases_ = 0;
  Clock::duration wall_{};
  std::atomic<Clock::rep> busy_{0};
};

}  // namespace terrace
