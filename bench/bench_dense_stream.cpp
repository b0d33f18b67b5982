// SPDX-License-Identifier: Apache-2.0
// Kernels of one-token decoding on weights that come from memory: gigabytes per second with all threads, and
// their share of the read bandwidth measured among them. Matrices larger than the caches, read from first to
// last byte; `gather` reads one random row in each run of 64 rows, as the gated feed-forward layer does, and
// in 64 calls every row once.
//
//   bench_dense_stream [--threads=N] [--dtype=NAME] [Google Benchmark's flags]
#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include <functional>
#include <memory>
#include <numeric>

#include "bench/check.h"
#include "bench/comparison.h"
#include "bench/onednn_dense.h"
#include "bench/quiet_openmp.h"
#include "bench/random_weight.h"
#include "bench/rotation.h"
#include "engine/linear.h"

namespace terrace::bench {
namespace {

constexpr std::size_t kBlock = 64;  // rows of which a gather reads one

class Bench {
 public:
  Bench(Runtime& runtime, const DenseKernels& kernels) : runtime_(runtime), kernels_(kernels) {}

  void add(DType dtype, std::size_t columns) {
    const std::size_t row = row_bytes(dtype, columns) + row_scale_bytes(dtype, columns);
    auto weights =
        std::make_shared<RandomWeight>(dtype, bytes_in_rotation() / row / kBlock * kBlock, columns, columns);
    const WeightView w = weights->view();
    const std::string suffix = fmt::format("/{}/{}", dtype_name(dtype), columns);
    Comparison comparison;
    comparison.subject = add_read(w, "read" + suffix);
    comparison.rivals = {add_dot(w, "dot" + suffix), add_axpy(w, "axpy" + suffix),
                         add_gather(w, "gather_read" + suffix, GatherUse::kRead),
                         add_gather(w, "gather_dot" + suffix, GatherUse::kDot),
                         add_gather(w, "gather_axpy" + suffix, GatherUse::kAxpy)};
    if (columns == 4096) add_onednn(w, "onednn" + suffix, comparison);
    comparisons_.push_back(comparison);
    weights_.push_back(weights);
  }

  const std::vector<Comparison>& comparisons() const noexcept { return comparisons_; }

 private:
  enum class GatherUse { kRead, kDot, kAxpy };

  void time(const std::string& name, std::function<void(Exec&)> body) {
    benchmark::RegisterBenchmark(name.c_str(),
                                 [this, body](benchmark::State& state) {
                                   Exec exec{runtime_.team(), ws_};
                                   const ThreadTeam::Region region(runtime_.team());
                                   for (auto _ : state) body(exec);
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }

  /// The same bytes in the same chunks, only read: the limit.
  Contender add_read(const WeightView& w, const std::string& name) {
    time(name, [=, this](Exec& exec) {
      const std::size_t row = row_bytes(w.dtype, w.cols);
      exec.for_range(w.rows, 16, row, [&](std::size_t begin, std::size_t end) {
        benchmark::DoNotOptimize(kernels_.read(w.row(begin), (end - begin) * row / kCacheLine * kCacheLine));
      });
    });
    return {name, w.rows * row_bytes(w.dtype, w.cols)};
  }

  Contender add_dot(const WeightView& w, const std::string& name) {
    auto x = std::make_shared<std::vector<float>>(random_floats(w.cols, 1));
    auto y = std::make_shared<std::vector<float>>(w.rows);
    const ConstRows input(x->data(), 1, w.cols, w.cols);
    const Rows output{y->data(), 1, w.rows, w.rows};
    // Correctness first, on a part that the scalar kernels get through.
    const std::size_t checked = 256;
    std::vector<float> expected(checked);
    Exec exec{runtime_.team(), ws_};
    Linear(dense_kernels(Isa::kScalar), w.slice_rows(0, checked), nullptr)
        .forward(exec, input, Rows{expected.data(), 1, checked, checked});
    const Linear linear(kernels_, w, nullptr);
    linear.forward(exec, input, output);
    require(std::equal(expected.begin(), expected.end(), y->begin()), name);
    // The views live as long as x and y do.
    time(name, [x, y, linear, input, output](Exec& e) { linear.forward(e, input, output); });
    return {name, w.bytes()};
  }

  Contender add_axpy(const WeightView& w, const std::string& name) {
    auto y = std::make_shared<std::vector<float>>(w.cols * kMaxChunks);
    time(name, [=, this](Exec& exec) {
      for_chunks(exec, w.rows, [&](std::size_t chunk, std::size_t begin, std::size_t end) {
        accumulate(w, y->data() + chunk * w.cols, end - begin, [=](std::size_t k) { return begin + k; });
      });
    });
    return {name, w.bytes()};
  }

  Contender add_gather(const WeightView& w, const std::string& name, GatherUse use) {
    const std::size_t n_blocks = w.rows / kBlock;
    const auto picks = std::make_shared<const std::vector<std::uint32_t>>(draws(n_blocks));
    auto x = std::make_shared<std::vector<float>>(random_floats(w.cols, 1));
    auto y = std::make_shared<std::vector<float>>(std::max(w.rows, w.cols * kMaxChunks));
    auto draw = std::make_shared<std::size_t>(0);
    time(name, [=, this](Exec& exec) {
      const Workspace::Scope scope(ws_);
      const PreparedRows prepared(exec, kernels_, w.dtype, ConstRows(x->data(), 1, w.cols, w.cols));
      const std::uint32_t* const pick = picks->data() + (*draw)++ % kBlock * n_blocks;
      for_chunks(exec, n_blocks, [&](std::size_t chunk, std::size_t begin, std::size_t end) {
        if (use == GatherUse::kAxpy) {
          accumulate(w, y->data() + chunk * w.cols, end - begin,
                     [=](std::size_t k) { return pick[begin + k]; });
          return;
        }
        for (std::size_t b = begin; b < end; ++b) {
          // The row after the next one sets out while this one is used.
          if (b + 2 < end) prefetch(w, pick[b + 2]);
          if (use == GatherUse::kDot) {
            dot_rows(kernels_, w.slice_rows(pick[b], 1), 0, 1, prepared, y->data() + b, 1);
          } else {
            benchmark::DoNotOptimize(kernels_.read(w.row(pick[b]), row_bytes(w.dtype, w.cols)));
          }
        }
      });
    });
    return {name, n_blocks * w.slice_rows(0, 1).bytes()};
  }

  void add_onednn(const WeightView& w, const std::string& name, Comparison& comparison) {
    if (w.dtype == DType::kQ4) return;
    auto onednn = std::make_shared<OneDnnDense>(w);
    if (!onednn->supported()) {
      fmt::print("{}: not offered by oneDNN on this CPU\n", name);
      return;
    }
    Exec exec{runtime_.team(), ws_};
    check_onednn(exec, *onednn, w, {random_floats(w.cols, 1).data(), 1, w.cols, w.cols}, name);
    benchmark::RegisterBenchmark(name.c_str(),
                                 [onednn](benchmark::State& state) {
                                   for (auto _ : state) onednn->run();
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
    comparison.rivals.push_back({name, w.rows * row_bytes(w.dtype, w.cols)});
  }

  static constexpr std::size_t kMaxChunks = 64;

  /// [kBlock, n_blocks] rows: of every block all its rows in an order of its own.
  static std::vector<std::uint32_t> draws(std::size_t n_blocks) {
    std::vector<std::uint32_t> picks(kBlock * n_blocks);
    FastRandom random(3);
    for (std::size_t b = 0; b < n_blocks; ++b) {
      std::uint32_t order[kBlock];
      std::iota(order, order + kBlock, static_cast<std::uint32_t>(b * kBlock));
      for (std::size_t i = kBlock; i-- > 1;) std::swap(order[i], order[random.bits() % (i + 1)]);
      for (std::size_t i = 0; i < kBlock; ++i) picks[i * n_blocks + b] = order[i];
    }
    return picks;
  }

  static void prefetch(const WeightView& w, std::size_t row) noexcept {
    const std::byte* const data = w.row(row);
    for (std::size_t i = 0; i < row_bytes(w.dtype, w.cols); i += kCacheLine) __builtin_prefetch(data + i);
  }

  /// Chunks that each own an accumulator.
  template <class F>
  static void for_chunks(Exec& exec, std::size_t n, F&& f) {
    const std::size_t n_chunks = std::min<std::size_t>(kMaxChunks, 4 * exec.team.size());
    exec.team.run(static_cast<std::uint32_t>(n_chunks),
                  [&](std::uint32_t chunk) { f(chunk, chunk * n / n_chunks, (chunk + 1) * n / n_chunks); });
  }

  /// y += sum of n rows in groups, each row scaled by a small number so that y stays in range.
  template <class RowOf>
  void accumulate(const WeightView& w, float* y, std::size_t n, RowOf row_of) const noexcept {
    constexpr std::size_t kGroup = 32;
    float a[kGroup], scratch_a[kGroup];
    std::uint32_t rows[kGroup];
    const void* scratch_rows[2 * kGroup];
    for (std::size_t k = 0; k < kGroup; ++k) a[k] = 1e-6F * static_cast<float>(k + 1);
    for (std::size_t first = 0; first < n; first += kGroup) {
      const std::size_t some = std::min(kGroup, n - first);
      for (std::size_t k = 0; k < some; ++k) rows[k] = static_cast<std::uint32_t>(row_of(first + k));
      axpy_rows(kernels_, w, a, rows, some, 0, w.cols, y, scratch_a, scratch_rows);
    }
  }

  Runtime& runtime_;
  const DenseKernels& kernels_;
  Workspace ws_{std::size_t{1} << 26};
  std::vector<std::shared_ptr<RandomWeight>> weights_;
  std::vector<Comparison> comparisons_;
};

void run(CommandLine& line) {
  Runtime runtime({.n_threads = line.take_threads()});
  const std::vector<DType> dtypes = line.take_dtypes();
  quiet_openmp(line, runtime.n_threads());
  start_comparisons(line);
  Bench bench(runtime, dense_kernels(isa_from_environment()));
  for (const DType dtype : dtypes) {
    for (const std::size_t columns : {1024, 4096}) bench.add(dtype, columns);
  }
  run_comparisons(runtime, bench.comparisons());
}

}  // namespace
}  // namespace terrace::bench

int main(int argc, char** argv) { return terrace::bench::run_program(argc, argv, terrace::bench::run); }
