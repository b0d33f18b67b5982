// SPDX-License-Identifier: Apache-2.0
// One token through the paper's sparse query, key and value, against dense ones of the same width, ours (one
// fused map of 3 * d rows, the best case) and oneDNN's. Weights are rotated over layers so that they come
// from memory. Shapes of the presets lm1b-24L (d 1024, 16 modules) and lm-17B (d 9216, 64 modules).
//
//   bench_sparse_qkv [--threads=N] [--dtype=f32|bf16|q8|q4] [Google Benchmark's flags]
#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include <memory>

#include "bench/check.h"
#include "bench/comparison.h"
#include "bench/onednn_dense.h"
#include "bench/quiet_openmp.h"
#include "bench/random_weight.h"
#include "bench/rotation.h"
#include "engine/linear.h"
#include "sparse/sparse_qkv.h"

namespace terrace::bench {
namespace {

constexpr std::size_t kSteps = 3;
constexpr std::size_t kInputs = 16;

struct Shape {
  std::size_t d;
  std::size_t n_modules;
};

struct SparseLayer {
  SparseLayer(DType dtype, const Shape& s, std::uint64_t seed)
      : n_modules(s.n_modules),
        proj(dtype, s.d / s.n_modules, s.d, seed),
        q(dtype, s.d / s.n_modules, 3 * kSteps * s.d / s.n_modules, seed + 1),
        k(dtype, s.d / s.n_modules, 3 * kSteps * s.d / s.n_modules, seed + 2),
        v(dtype, s.d / s.n_modules, kSteps * s.d / s.n_modules, seed + 3),
        gate(dtype, s.n_modules, s.d, seed + 4),
        bias(s.d, 0.1F) {}

  SparseQkv layer(const DenseKernels& kernels, RecurrentLayout& layout) const {
    const auto conv = [&](const RandomWeight& w, std::size_t kernel_size) {
      return LocallyConvDense(kernels, w.view(), bias.data(), n_modules, kernel_size, kSteps);
    };
    return {FactoredDense(kernels, gate.view(), proj.view(), bias.data()),
            conv(q, 3),
            conv(k, 3),
            conv(v, 1),
            VConcat::kNone,
            layout};
  }

  std::size_t n_modules;
  RandomWeight proj;
  RandomWeight q;
  RandomWeight k;
  RandomWeight v;
  RandomWeight gate;
  std::vector<float> bias;
};

class Bench {
 public:
  Bench(Runtime& runtime, const DenseKernels& kernels) : runtime_(runtime), kernels_(kernels) {}

  void add(DType dtype, const Shape& s) {
    const std::string suffix = fmt::format("/{}/d{}", dtype_name(dtype), s.d);
    Comparison comparison;
    comparison.subject = add_sparse(dtype, s, "sparse_qkv" + suffix);
    comparison.rivals.push_back(add_dense(dtype, s, "dense_qkv" + suffix));
    if (dtype == DType::kF32 || dtype == DType::kBf16) add_onednn(s, "onednn_qkv" + suffix, comparison);
    comparisons_.push_back(comparison);
  }

  const std::vector<Comparison>& comparisons() const noexcept { return comparisons_; }

 private:
  static std::vector<std::vector<float>> inputs(std::size_t d) {
    std::vector<std::vector<float>> result;
    for (std::size_t i = 0; i < kInputs; ++i) result.push_back(random_floats(d, 77 + i));
    return result;
  }

  /// q, k and v of a few tokens, one after the other, from a fresh state.
  std::vector<float> run(const SparseQkv& layer, const RecurrentLayout& layout,
                         const std::vector<std::vector<float>>& xs) {
    const std::size_t d = layer.d_in();
    std::vector<float> state(layout.size());
    std::vector<float> y(3 * d);
    Exec exec{runtime_.team(), ws_};
    for (const auto& x : xs) {
      layer.forward(exec, {x.data(), 1, d, d}, state.data(), {y.data(), 1, d, d}, {y.data() + d, 1, d, d},
                    {y.data() + 2 * d, 1, d, d});
    }
    return y;
  }

  Contender add_sparse(DType dtype, const Shape& s, const std::string& name) {
    struct Stack {
      std::vector<std::unique_ptr<SparseLayer>> weights;
      std::vector<SparseQkv> layers;
      RecurrentLayout layout;
      std::vector<std::vector<float>> xs;
    };
    auto stack = std::make_shared<Stack>();
    stack->xs = inputs(s.d);
    const std::size_t wanted = bytes_in_rotation();
    std::size_t bytes = 0;
    while (bytes < wanted) {
      stack->weights.push_back(std::make_unique<SparseLayer>(dtype, s, 100 * stack->weights.size() + 1));
      stack->layers.push_back(stack->weights.back()->layer(kernels_, stack->layout));
      bytes += stack->layers.back().bytes_per_token();
    }
    RecurrentLayout layout;
    const SparseQkv reference = stack->weights[0]->layer(dense_kernels(Isa::kScalar), layout);
    const std::vector<std::vector<float>> few(stack->xs.begin(), stack->xs.begin() + 3);
    require(difference(run(stack->layers[0], stack->layout, few), run(reference, layout, few)) < 1e-3, name);

    benchmark::RegisterBenchmark(name.c_str(),
                                 [this, stack](benchmark::State& state) {
                                   Exec exec{runtime_.team(), ws_};
                                   const ThreadTeam::Region region(runtime_.team());
                                   const std::size_t d = stack->layers[0].d_in();
                                   std::vector<float> recurrent(stack->layout.size());
                                   std::vector<float> y(3 * d);
                                   for (auto _ : state) {
                                     stack->layers[next_ % stack->layers.size()].forward(
                                         exec, {stack->xs[next_ % kInputs].data(), 1, d, d}, recurrent.data(),
                                         {y.data(), 1, d, d}, {y.data() + d, 1, d, d},
                                         {y.data() + 2 * d, 1, d, d});
                                     ++next_;
                                   }
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
    return {name, stack->layers[0].bytes_per_token()};
  }

  /// Layers of one map [3d, d]; kept for the oneDNN rival of the same shape and dtype.
  Contender add_dense(DType dtype, const Shape& s, const std::string& name) {
    dense_ = std::make_shared<std::vector<std::unique_ptr<RandomWeight>>>();
    const std::size_t wanted = bytes_in_rotation();
    std::size_t bytes = 0;
    while (bytes < wanted) {
      dense_->push_back(std::make_unique<RandomWeight>(dtype, 3 * s.d, s.d, dense_->size() + 1));
      bytes += dense_->back()->view().bytes();
    }
    benchmark::RegisterBenchmark(
        name.c_str(),
        [this, weights = dense_, xs = inputs(s.d), d = s.d](benchmark::State& state) {
          Exec exec{runtime_.team(), ws_};
          const ThreadTeam::Region region(runtime_.team());
          std::vector<float> y(3 * d);
          for (auto _ : state) {
            Linear(kernels_, (*weights)[next_ % weights->size()]->view(), nullptr)
                .forward(exec, {xs[next_ % kInputs].data(), 1, d, d}, {y.data(), 1, 3 * d, 3 * d});
            ++next_;
          }
        })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
    return {name, dense_->front()->view().bytes()};
  }

  void add_onednn(const Shape& s, const std::string& name, Comparison& comparison) {
    auto products = std::make_shared<std::vector<OneDnnDense>>();
    for (const auto& weight : *dense_) {
      products->emplace_back(weight->view());
      if (products->back().supported()) continue;
      fmt::print("{}: not offered by oneDNN on this CPU\n", name);
      return;
    }
    const WeightView w = dense_->front()->view();
    Exec exec{runtime_.team(), ws_};
    const std::vector<float> x = random_floats(s.d, 5);
    check_onednn(exec, products->front(), w, {x.data(), 1, s.d, s.d}, name);
    benchmark::RegisterBenchmark(name.c_str(),
                                 [this, products](benchmark::State& state) {
                                   for (auto _ : state) (*products)[next_++ % products->size()].run();
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
    comparison.rivals.push_back({name, w.bytes()});
  }

  Runtime& runtime_;
  const DenseKernels& kernels_;
  Workspace ws_{std::size_t{1} << 28};
  std::shared_ptr<std::vector<std::unique_ptr<RandomWeight>>> dense_;
  std::vector<Comparison> comparisons_;
  std::size_t next_ = 0;
};

void run(CommandLine& line) {
  Runtime runtime({.n_threads = line.take_threads()});
  const std::vector<DType> dtypes = line.take_dtypes();
  quiet_openmp(line, runtime.n_threads());
  start_comparisons(line);
  Bench bench(runtime, dense_kernels(isa_from_environment()));
  for (const DType dtype : dtypes) {
    bench.add(dtype, {1024, 16});
    // Rows of 9 * 144 taps are no q4 rows, and the f32 matrix is 1 GB.
    if (dtype == DType::kBf16 || dtype == DType::kQ8) bench.add(dtype, {9216, 64});
  }
  run_comparisons(runtime, bench.comparisons());
}

}  // namespace
}  // namespace terrace::bench

int main(int argc, char** argv) { return terrace::bench::run_program(argc, argv, terrace::bench::run); }
