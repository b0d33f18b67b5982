// SPDX-License-Identifier: Apache-2.0
// What a parallel phase costs beyond its work: the thread team with its region held open, the team with a
// region per phase, TBB's parallel_for. Empty chunks, and chunks of some microseconds.
//
//   bench_thread_team [--threads=N] [Google Benchmark's flags]
#include <benchmark/benchmark.h>
#include <fmt/core.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <chrono>
#include <string>

#include "bench/command_line.h"
#include "engine/runtime.h"

namespace terrace::bench {
namespace {

/// Keeps a core busy for about `cycles` dependent additions.
void work(std::size_t cycles) {
  std::size_t x = cycles;
  for (std::size_t i = 0; i < cycles; ++i) benchmark::DoNotOptimize(x += i);
}

/// Chunks per thread, as Exec::for_range makes them.
constexpr unsigned kChunksPerThread = 4;

template <class Body>
void add(const std::string& name, Body body) {
  benchmark::RegisterBenchmark(name.c_str(), [body](benchmark::State& state) { body(state); })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

void add_all(Runtime& runtime, tbb::task_arena& arena, std::size_t cycles) {
  const unsigned n_chunks = kChunksPerThread * runtime.n_threads();
  const std::string suffix = fmt::format("/{}_cycles_per_chunk", cycles);
  add("one_thread" + suffix, [=](benchmark::State& state) {
    for (auto _ : state) {
      for (unsigned i = 0; i < n_chunks; ++i) work(cycles);
    }
  });
  add("team" + suffix, [=, &runtime](benchmark::State& state) {
    const ThreadTeam::Region region(runtime.team());
    for (auto _ : state) runtime.team().run(n_chunks, [=](std::uint32_t) { work(cycles); });
  });
  add("team_and_region" + suffix, [=, &runtime](benchmark::State& state) {
    for (auto _ : state) {
      const ThreadTeam::Region region(runtime.team());
      runtime.team().run(n_chunks, [=](std::uint32_t) { work(cycles); });
    }
  });
  add("tbb_static" + suffix, [=, &arena](benchmark::State& state) {
    for (auto _ : state) {
      arena.execute([&] {
        tbb::parallel_for(
            0U, n_chunks, [=](unsigned) { work(cycles); }, tbb::static_partitioner());
      });
    }
  });
  add("tbb_default" + suffix, [=, &arena](benchmark::State& state) {
    for (auto _ : state) {
      arena.execute([&] { tbb::parallel_for(0U, n_chunks, [=](unsigned) { work(cycles); }); });
    }
  });
}

void run(CommandLine& line) {
  Runtime runtime({.n_threads = line.take_threads()});
  line.start_benchmark();
  tbb::task_arena arena(static_cast<int>(runtime.n_threads()));
  for (const std::size_t cycles : {0, 1000, 10000}) add_all(runtime, arena, cycles);
  fmt::print("{} threads, {} chunks per phase\n", runtime.n_threads(),
             kChunksPerThread * runtime.n_threads());
  benchmark::RunSpecifiedBenchmarks();
}

}  // namespace
}  // namespace terrace::bench

int main(int argc, char** argv) { return terrace::bench::run_program(argc, argv, terrace::bench::run); }
