// SPDX-License-Identifier: Apache-2.0
// Kernels on one core with all data in its caches: multiply-adds per second, and their share of what the
// core's multiply-add units can do in f32. Against the scalar specification and oneDNN.
//
//   bench_dense_kernels [--dtype=NAME] [Google Benchmark's flags]    TERRACE_ISA chooses the instruction set
#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/check.h"
#include "bench/command_line.h"
#include "bench/fma_peak.h"
#include "bench/onednn_dense.h"
#include "bench/quiet_openmp.h"
#include "bench/random_weight.h"
#include "engine/exec.h"
#include "engine/linear.h"

namespace terrace::bench {
namespace {

/// The panel of a multiplicative layer (d_module x d_model): 256 KiB in f32, so it stays in the L2 cache.
constexpr std::size_t kRows = 64;
constexpr std::size_t kColumns = 1024;

class Bench {
 public:
  explicit Bench(const DenseKernels& kernels) : kernels_(kernels), peak_(fma_peak(kernels.isa)) {}

  void add_dot(DType dtype, std::size_t n_tokens) {
    auto problem = std::make_shared<Problem>(dtype, n_tokens);
    const std::string suffix = fmt::format("/{}/tokens:{}", dtype_name(dtype), n_tokens);
    require(same(problem->run(kernels_), problem->run(dense_kernels(Isa::kScalar))), "dot" + suffix);
    const double work = static_cast<double>(kRows * kColumns * n_tokens);
    add("dot" + suffix, work, [=, this] { problem->dot(kernels_); });
    if (n_tokens <= 4) add("scalar_dot" + suffix, work, [=] { problem->dot(dense_kernels(Isa::kScalar)); });

    auto onednn = std::make_shared<OneDnnDense>(problem->w.view(), n_tokens);
    if (!onednn->supported()) return;
    check_onednn(problem->exec, *onednn, problem->w.view(), problem->input(), "onednn_dot" + suffix);
    add("onednn_dot" + suffix, work, [=] { onednn->run(); });
  }

  void add_axpy(DType dtype) {
    auto problem = std::make_shared<Problem>(dtype, 1);
    const std::string suffix = fmt::format("/{}", dtype_name(dtype));
    require(same(problem->axpy(kernels_), problem->axpy(dense_kernels(Isa::kScalar))), "axpy" + suffix);
    const double work = kRows * kColumns;
    add("axpy" + suffix, work, [=, this] { problem->axpy_once(kernels_); });
    add("scalar_axpy" + suffix, work, [=] { problem->axpy_once(dense_kernels(Isa::kScalar)); });
  }

  void add_elementwise() {
    using Kernel = void (*)(float*, std::size_t) noexcept;
    auto x = std::make_shared<std::vector<float>>(random_floats(kColumns, 5));
    for (const auto& [name, kernel] : {std::pair<const char*, Kernel>{"gelu", kernels_.gelu},
                                       {"fast_gelu", kernels_.fast_gelu},
                                       {"silu", kernels_.silu},
                                       {"sigmoid", kernels_.sigmoid},
                                       {"relu", kernels_.relu}}) {
      auto y = std::make_shared<std::vector<float>>(kColumns);
      add(fmt::format("elementwise/{}", name), kColumns, [=, k = kernel] {
        *y = *x;  // in place: without a fresh input the values would shrink to nothing
        k(y->data(), y->size());
      });
    }
    auto y = std::make_shared<std::vector<float>>(kColumns);
    auto q = std::make_shared<std::vector<std::int8_t>>(kColumns);
    add("elementwise/norm", kColumns,
        [=, this] { kernels_.norm(x->data(), kColumns, x->data(), x->data(), true, 1e-6F, y->data()); });
    add("elementwise/quantize", kColumns,
        [=, this] { quantize_row(kernels_, x->data(), kColumns, q->data()); });
  }

  double peak() const noexcept { return peak_; }

 private:
  /// A panel of weights, activations in both preparations, outputs.
  struct Problem {
    Problem(DType dtype, std::size_t n)
        : w(dtype, kRows, kColumns, 1), n_tokens(n), x(random_floats(n * kColumns, 2)), y(n * kRows) {
      prepared.emplace(exec, dense_kernels(Isa::kScalar), dtype, input());
      for (std::uint32_t r = 0; r < kRows; ++r) rows.push_back(r);
    }
    void dot(const DenseKernels& kernels) noexcept {
      dot_rows(kernels, w.view(), 0, kRows, *prepared, y.data(), kRows);
    }
    std::vector<float> run(const DenseKernels& kernels) {
      dot(kernels);
      return y;
    }
    void axpy_once(const DenseKernels& kernels) noexcept {
      axpy_rows(kernels, w.view(), x.data(), rows.data(), kRows, 0, kColumns, sum.data(), scratch_a.data(),
                scratch_rows.data());
    }
    std::vector<float> axpy(const DenseKernels& kernels) {
      sum.assign(kColumns, 0.0F);
      axpy_once(kernels);
      return sum;
    }
    ConstRows input() const { return {x.data(), n_tokens, kColumns, kColumns}; }

    RandomWeight w;
    std::size_t n_tokens;
    std::vector<float> x, y;
    std::vector<float> sum = std::vector<float>(kColumns);
    std::vector<float> scratch_a = std::vector<float>(kRows);
    std::vector<const void*> scratch_rows = std::vector<const void*>(2 * kRows);
    std::vector<std::uint32_t> rows;
    ThreadTeam team{1};
    Workspace ws{std::size_t{1} << 24};
    Exec exec{team, ws};
    std::optional<PreparedRows> prepared;
  };

  static bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }

  void add(const std::string& name, double work, std::function<void()> body) {
    benchmark::RegisterBenchmark(name.c_str(), [=, this](benchmark::State& state) {
      const FlushDenormals float_mode;
      for (auto _ : state) {
        body();
        benchmark::ClobberMemory();
      }
      const double total = work * static_cast<double>(state.iterations());
      state.counters["G/s"] = benchmark::Counter(total * 1e-9, benchmark::Counter::kIsRate);
      if (peak_ > 0)
        state.counters["of_peak"] = benchmark::Counter(total / peak_, benchmark::Counter::kIsRate);
    });
  }

  const DenseKernels& kernels_;
  double peak_;
};

void run(CommandLine& line) {
  const std::vector<DType> dtypes = line.take_dtypes();
  quiet_openmp(line, 1);  // oneDNN too has one core
  line.start_benchmark();
  Bench bench(dense_kernels(isa_from_environment()));
  for (const DType dtype : dtypes) {
    for (const std::size_t n_tokens : {1, 4, 16, 64}) bench.add_dot(dtype, n_tokens);
    bench.add_axpy(dtype);
  }
  bench.add_elementwise();
  fmt::print("isa {}, one core, peak {:.1f} G multiply-adds/s\n", isa_name(isa_from_environment()),
             bench.peak() * 1e-9);
  benchmark::RunSpecifiedBenchmarks();
}

}  // namespace
}  // namespace terrace::bench

int main(int argc, char** argv) { return terrace::bench::run_program(argc, argv, terrace::bench::run); }
