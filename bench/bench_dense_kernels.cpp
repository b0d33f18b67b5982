// SPDX-License-Identifier: Apache-2.0
// Kernels on one core with all data in its caches: multiply-adds per second, and their share of what the
// core's multiply-add units can do in f32. Against the scalar specification and oneDNN.
//
//   bench_dense_kernels [Google Benchmark's flags]      TERRACE_ISA chooses the instruction set
#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/fma_peak.h"
#include "bench/onednn_dense.h"
#include "bench/random_weight.h"
#include "bench/ratio.h"
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
    const std::vector<float> expected = problem->run(dense_kernels(Isa::kScalar));
    require(same(problem->run(kernels_), expected), "dot" + suffix);
    const double work = static_cast<double>(kRows * kColumns * n_tokens);
    add("dot" + suffix, work, [=, this] { problem->dot(kernels_); });
    if (n_tokens <= 4) add("scalar_dot" + suffix, work, [=] { problem->dot(dense_kernels(Isa::kScalar)); });

    auto onednn = std::make_shared<OneDnnDense>(problem->w.view(), n_tokens);
    if (!onednn->supported()) return;
    problem->copy_input(onednn->x());
    onednn->run();
    if (dtype == DType::kF32) {
      for (std::size_t i = 0; i < expected.size(); ++i) {
        require(std::abs(onednn->y()[i] - expected[i]) < 1e-4F, "onednn" + suffix);
      }
    }
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
      prepared.emplace(exec, dense_kernels(Isa::kScalar), dtype, ConstRows(x.data(), n, kColumns, kColumns));
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
    void copy_input(void* to) const {
      for (std::size_t i = 0; i < x.size(); ++i) {
        switch (w.view().dtype) {
          case DType::kF32:
            static_cast<float*>(to)[i] = x[i];
            break;
          case DType::kBf16:
            static_cast<std::uint16_t*>(to)[i] = f32_to_bf16(x[i]);
            break;
          default:
            static_cast<std::int8_t*>(to)[i] = prepared->q8()[i / kColumns].q[i % kColumns];
        }
      }
    }

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

}  // namespace
}  // namespace terrace::bench

int main(int argc, char** argv) {
  using namespace terrace;
  ::setenv("OMP_NUM_THREADS", "1", 1);  // oneDNN too has one core
  bench::quiet_openmp(argv);
  bench::Bench bench(dense_kernels(isa_from_environment()));
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4}) {
    for (const std::size_t n_tokens : {1, 4, 16, 64}) bench.add_dot(dtype, n_tokens);
    bench.add_axpy(dtype);
  }
  bench.add_elementwise();
  fmt::print("isa {}, one core, peak {:.1f} G multiply-adds/s\n", isa_name(isa_from_environment()),
             bench.peak() * 1e-9);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
