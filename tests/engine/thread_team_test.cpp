// SPDX-License-Identifier: Apache-2.0
#include "engine/thread_team.h"

#include <doctest/doctest.h>
#include <tbb/global_control.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "engine/exec.h"
#include "tests/support/expect_error.h"

namespace terrace::test {
namespace {

/// Runs a phase and checks that every chunk ran exactly once.
void check_phase(ThreadTeam& team, std::uint32_t n_chunks) {
  std::vector<std::uint32_t> runs(n_chunks, 0);  // plain integers: TSan sees a chunk that runs twice
  team.run(n_chunks, [&](std::uint32_t chunk) { ++runs[chunk]; });
  std::size_t wrong = 0;
  for (const std::uint32_t n : runs) wrong += n != 1;
  CAPTURE(n_chunks);
  CHECK(wrong == 0);
}

void check_team(unsigned n_threads, unsigned n_regions) {
  CAPTURE(n_threads);
  ThreadTeam team(n_threads);
  CHECK(team.size() == n_threads);
  for (unsigned i = 0; i < n_regions; ++i) {
    const ThreadTeam::Region region(team);
    for (const std::uint32_t n_chunks : {0U, 1U, 2U, 7U, 64U, 1000U, ThreadTeam::kMaxChunks}) {
      check_phase(team, n_chunks);
    }
  }
}

TEST_CASE("every chunk runs exactly once, whatever the numbers of threads and chunks") {
  for (const unsigned n_threads : {1U, 2U, 3U, 8U}) check_team(n_threads, 3);
}

TEST_CASE("progress needs no worker: TBB limited to the calling thread") {
  const tbb::global_control only_leader(tbb::global_control::max_allowed_parallelism, 1);
  for (const unsigned n_threads : {1U, 2U, 8U}) check_team(n_threads, 2);
}

TEST_CASE("many short phases in a row, with more threads than cores") {
  for (const unsigned n_threads : {2U, 8U}) {
    ThreadTeam team(n_threads);
    const ThreadTeam::Region region(team);
    std::vector<std::uint64_t> sums(16, 0);
    constexpr std::uint32_t kPhases = 2000;
    for (std::uint32_t phase = 0; phase < kPhases; ++phase) {
      // Each phase reads what the one before wrote, whoever wrote it.
      team.run(16, [&](std::uint32_t chunk) { sums[chunk] += phase; });
    }
    for (const std::uint64_t sum : sums) CHECK(sum == std::uint64_t{kPhases} * (kPhases - 1) / 2);
  }
}

TEST_CASE("without an open region the leader runs everything") {
  ThreadTeam team(4);
  const std::thread::id leader = std::this_thread::get_id();
  bool elsewhere = false;
  team.run(100, [&](std::uint32_t) { elsewhere = elsewhere || std::this_thread::get_id() != leader; });
  CHECK_FALSE(elsewhere);
  check_phase(team, 100);
}

TEST_CASE("regions nest: the outermost one holds the workers") {
  ThreadTeam team(3);
  const ThreadTeam::Region outer(team);
  {
    const ThreadTeam::Region inner(team);
    check_phase(team, 50);
  }
  check_phase(team, 50);
}

TEST_CASE("an exception between phases closes the region, and the team works on") {
  ThreadTeam team(3);
  for (int i = 0; i < 3; ++i) {
    CHECK_THROWS_AS(
        [&] {
          const ThreadTeam::Region region(team);
          check_phase(team, 20);
          throw std::runtime_error("from a callback");
        }(),
        std::runtime_error);
    const ThreadTeam::Region region(team);
    check_phase(team, 20);
  }
}

TEST_CASE("two teams work at the same time on two threads") {
  const auto work = [] { check_team(2, 2); };
  std::thread other(work);
  work();
  other.join();
}

TEST_CASE("denormal numbers are flushed in every chunk, and only inside the region") {
  volatile float tiny = 1e-38F;
  const auto denormal = [&] { return tiny * 0.01F; };
  ThreadTeam team(4);
  CHECK(denormal() != 0.0F);
  {
    const ThreadTeam::Region region(team);
    std::atomic<int> survivors{0};
    team.run(200, [&](std::uint32_t) { survivors += denormal() != 0.0F; });
    CHECK(survivors == 0);
  }
  CHECK(denormal() != 0.0F);
}

TEST_CASE("for_range covers the range once, in aligned pieces that are worth a thread") {
  Workspace ws;
  for (const unsigned n_threads : {1U, 3U}) {
    ThreadTeam team(n_threads);
    const ThreadTeam::Region region(team);
    const Exec exec{team, ws};
    for (const std::size_t n : {0, 1, 15, 16, 1000, 4099}) {
      for (const std::size_t align : {1, 16, 64}) {
        for (const std::size_t work : {1, 100, 1000000}) {
          std::vector<int> runs(n, 0);
          std::atomic<int> bad{0};
          exec.for_range(n, align, work, [&](std::size_t begin, std::size_t end) {
            bad += begin % align != 0 || begin >= end;
            bad += end != n && (end - begin + 1) * work < Exec::kMinWorkPerChunk;
            for (std::size_t i = begin; i < end; ++i) ++runs[i];
          });
          CHECK(bad == 0);
          std::size_t wrong = 0;
          for (const int r : runs) wrong += r != 1;
          CHECK(wrong == 0);
        }
      }
    }
  }
}

TEST_CASE("phase times: shared phases are counted, and busy threads account for what their chunks take") {
  constexpr auto kChunk = std::chrono::milliseconds(2);
  ThreadTeam team(2);
  PhaseTimes times;
  const auto run_phases = [&] {
    const ThreadTeam::Region region(team);
    for (int phase = 0; phase < 5; ++phase) {
      team.run(4, [&](std::uint32_t) { std::this_thread::sleep_for(kChunk); });
    }
    team.run(1, [](std::uint32_t) {});  // the leader's own
  };
  run_phases();
  CHECK(times.phases() == 0);
  team.set_phase_times(&times);
  run_phases();
  CHECK(times.phases() == 5);
  const double least = 5 * 4 * std::chrono::duration<double>(kChunk).count();
  CHECK(times.busy_seconds() >= least);
  CHECK(times.wall_seconds() >= least / 2);
  CHECK(times.busy_seconds() <= 2 * times.wall_seconds() + 1e-3);
  times.clear();
  team.set_phase_times(nullptr);
  run_phases();
  CHECK(times.phases() == 0);
  CHECK(times.busy_seconds() == 0);
}

TEST_CASE("a prelude is done once, by the leader, before any chunk goes on") {
  for (const unsigned n_threads : {1U, 2U, 3U, 8U}) {
    ThreadTeam team(n_threads);
    for (const bool open : {false, true}) {
      std::optional<ThreadTeam::Region> region;
      if (open) region.emplace(team);
      for (const std::uint32_t n_chunks : {1U, 2U, 5U, 64U}) {
        int made = 0;  // plain: TSan sees a chunk that reads it too early
        const std::thread::id leader = std::this_thread::get_id();
        const auto make = [&] {
          CHECK(std::this_thread::get_id() == leader);
          ++made;
        };
        ThreadTeam::Prelude prelude(team, make);
        std::vector<int> seen(n_chunks, 0), readied(n_chunks, 0);
        team.run(n_chunks, [&](std::uint32_t chunk) {
          prelude.pass(chunk, [&] { ++readied[chunk]; });
          seen[chunk] += made;
        });
        CHECK(made == 1);
        CHECK(seen == std::vector<int>(n_chunks, 1));
        CHECK(readied[0] == 0);
        CHECK(std::count(readied.begin(), readied.end(), 1) == static_cast<std::ptrdiff_t>(n_chunks) - 1);
      }
    }
  }
}

TEST_CASE("phase times: what the leader does alone in a prelude belongs to no phase") {
  ThreadTeam team(2);
  PhaseTimes times;
  team.set_phase_times(&times);
  constexpr auto kAlone = std::chrono::milliseconds(200);
  {
    const ThreadTeam::Region region(team);
    const auto make = [&] { std::this_thread::sleep_for(kAlone); };
    ThreadTeam::Prelude prelude(team, make);
    team.run(2, [&](std::uint32_t chunk) { prelude.pass(chunk, [] {}); });
  }
  team.set_phase_times(nullptr);
  CHECK(times.phases() == 1);
  CHECK(times.wall_seconds() < std::chrono::duration<double>(kAlone).count());
  CHECK(times.busy_seconds() < std::chrono::duration<double>(kAlone).count());
}

TEST_CASE("a team of no or too many threads is refused") {
  expect_error(ErrorCode::kBadArgument, "between 1 and 1024", [] { ThreadTeam team(0); });
  expect_error(ErrorCode::kBadArgument, "found 1025", [] { ThreadTeam team(1025); });
}

}  // namespace
}  // namespace terrace::test
