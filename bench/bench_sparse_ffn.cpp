// SPDX-License-Identifier: Apache-2.0
// One token through the sparse feed-forward layer, against a dense one with as many parameters, ours and
// oneDNN's. Weights are rotated over layers so that they come from memory. Shapes of the preset lm1b-24L.
//
//   bench_sparse_ffn [--threads=N] [--dtype=f32|bf16|q8|q4] [Google Benchmark's flags]
#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include <deque>
#include <memory>

#include "bench/check.h"
#include "bench/comparison.h"
#include "bench/onednn_dense.h"
#include "bench/quiet_openmp.h"
#include "bench/random_weight.h"
#include "bench/rotation.h"
#include "engine/feed_forward.h"
#include "sparse/sparse_ffn.h"

namespace terrace::bench {
namespace {

constexpr std::size_t kD = 1024;
constexpr std::size_t kFf = 6144;
constexpr std::size_t kBlock = 64;
constexpr std::size_t kRank = 96;
/// Hidden units of the dense twin: 2 * d * F' = 2 * d * F + r * (d + F) + F, rounded.
constexpr std::size_t kTwinFf = 6464;
/// Sparse layers that share their units: a token reads one unit in kBlock, so that layers with controllers of
/// their own seldom want the same one, and all units of all layers would be ten times what is read.
constexpr std::size_t kSharing = 8;
constexpr std::size_t kInputs = 16;

struct SparseLayer {
  SparseLayer(DType dtype, std::uint64_t seed, std::shared_ptr<const RandomWeight> u)
      : down(dtype, kRank, kD, seed),
        // Rows of r = 96 columns are no q4 rows.
        up(dtype == DType::kQ4 ? DType::kQ8 : dtype, kFf, kRank, seed + 1),
        units(std::move(u)),
        controller_bias(kFf, 0.0F),
        bias(kD, 0.1F) {}
  SparseFfn layer(const DenseKernels& kernels) const {
    const Controller controller(kernels, down.view(), up.view(), controller_bias.data(), kBlock);
    return {kernels, controller, units->view(), bias.data(), false};
  }

  RandomWeight down;
  RandomWeight up;
  std::shared_ptr<const RandomWeight> units;  // [2 * kFf, kD]
  std::vector<float> controller_bias;
  std::vector<float> bias;
};

struct DenseLayer {
  DenseLayer(DType dtype, std::uint64_t seed)
      : w1(dtype, kTwinFf, kD, seed), w2(dtype, kD, kTwinFf, seed + 1), b1(kTwinFf, 0.0F), b2(kD, 0.1F) {}
  FeedForward layer(const DenseKernels& kernels) const {
    return {
        Linear(kernels, w1.view(), b1.data()), Linear(kernels, w2.view(), b2.data()), {}, Activation::kRelu};
  }

  RandomWeight w1;
  RandomWeight w2;
  std::vector<float> b1;
  std::vector<float> b2;
};

class Bench {
 public:
  Bench(Runtime& runtime, const DenseKernels& kernels) : runtime_(runtime), kernels_(kernels) {
    for (std::size_t i = 0; i < kInputs; ++i) inputs_.push_back(random_floats(kD, 77 + i));
  }

  void add(DType dtype) {
    const std::string suffix = std::string("/") + dtype_name(dtype);
    Comparison comparison;
    comparison.subject = add_sparse(dtype, "sparse_ffn" + suffix);
    comparison.rivals.push_back(add_dense(dtype, "dense_twin" + suffix));
    if (dtype == DType::kF32 || dtype == DType::kBf16) add_onednn(dtype, "onednn_twin" + suffix, comparison);
    comparisons_.push_back(comparison);
  }

  const std::vector<Comparison>& comparisons() const noexcept { return comparisons_; }

 private:
  template <class Layer>
  std::vector<float> run(const Layer& layer, const std::vector<float>& x) {
    std::vector<float> y(kD);
    Exec exec{runtime_.team(), ws_};
    layer.forward(exec, {x.data(), 1, kD, kD}, {y.data(), 1, kD, kD});
    return y;
  }

  template <class Layer>
  void time(const std::string& name, std::vector<Layer> layers) {
    benchmark::RegisterBenchmark(name.c_str(),
                                 [this, layers](benchmark::State& state) {
                                   Exec exec{runtime_.team(), ws_};
                                   const ThreadTeam::Region region(runtime_.team());
                                   std::vector<float> y(kD);
                                   for (auto _ : state) {
                                     layers[next_ % layers.size()].forward(
                                         exec, {inputs_[next_ % kInputs].data(), 1, kD, kD},
                                         {y.data(), 1, kD, kD});
                                     ++next_;
                                   }
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  }

  Contender add_sparse(DType dtype, const std::string& name) {
    const std::size_t wanted = bytes_in_rotation();
    std::vector<SparseFfn> layers;
    std::shared_ptr<const RandomWeight> units;
    std::size_t bytes = 0;
    for (std::uint64_t i = 0; bytes < wanted; ++i) {
      if (i % kSharing == 0) units = std::make_shared<RandomWeight>(dtype, 2 * kFf, kD, 100 * i + 3);
      const auto& weights = sparse_.emplace_back(std::make_unique<SparseLayer>(dtype, 100 * i + 1, units));
      layers.push_back(weights->layer(kernels_));
      bytes += layers.back().bytes_per_token(kFf);
    }
    const SparseLayer& first = *sparse_[sparse_.size() - layers.size()];
    const SparseFfn reference = first.layer(dense_kernels(Isa::kScalar));
    for (const auto& x : inputs_) require(difference(run(layers[0], x), run(reference, x)) < 1e-3, name);
    time(name, layers);
    return {name, layers[0].bytes_per_token(kFf) - silent_bytes(reference, first)};
  }

  /// Bytes of w2 rows that a token leaves unread because the unit's activation is zero; the mean over the
  /// inputs.
  std::size_t silent_bytes(const SparseFfn& layer, const SparseLayer& weights) {
    std::size_t n_silent = 0;
    std::vector<float> y(kD);
    std::vector<std::uint32_t> active(layer.n_blocks());
    for (const auto& x : inputs_) {
      Exec exec{runtime_.team(), ws_};
      const Workspace::Scope scope(ws_);
      layer.forward(exec, {x.data(), 1, kD, kD}, {y.data(), 1, kD, kD}, kFf, active.data());
      const DenseKernels& kernels = dense_kernels(Isa::kScalar);
      const PreparedRows rows(exec, kernels, weights.units->view().dtype, {x.data(), 1, kD, kD});
      for (const std::uint32_t unit : active) {
        float a = 0.0F;
        dot_rows(kernels, weights.units->view().slice_rows(2 * unit, 1), 0, 1, rows, &a, 1);
        n_silent += a <= 0.0F ? 1 : 0;
      }
    }
    return n_silent * weights.units->view().slice_rows(0, 1).bytes() / kInputs;
  }

  Contender add_dense(DType dtype, const std::string& name) {
    const std::size_t wanted = bytes_in_rotation();
    std::vector<FeedForward> layers;
    std::size_t bytes = 0;
    for (std::uint64_t i = 0; bytes < wanted; ++i) {
      layers.push_back(
          dense_.emplace_back(std::make_unique<DenseLayer>(dtype, 100 * i + 7))->layer(kernels_));
      bytes += layers.back().bytes_per_token(kTwinFf);
    }
    const FeedForward reference = dense_[dense_.size() - layers.size()]->layer(dense_kernels(Isa::kScalar));
    require(difference(run(layers[0], inputs_[0]), run(reference, inputs_[0])) < 1e-3, name);
    time(name, layers);
    return {name, layers[0].bytes_per_token(kTwinFf)};
  }

  void add_onednn(DType dtype, const std::string& name, Comparison& comparison) {
    struct Pair {
      OneDnnDense up;
      OneDnnDense down;
    };
    auto pairs = std::make_shared<std::deque<Pair>>();
    std::size_t bytes = 0;
    for (const auto& weights : dense_) {
      if (weights->w1.view().dtype != dtype) continue;
      const Pair& pair =
          pairs->emplace_back(Pair{OneDnnDense(weights->w1.view()), OneDnnDense(weights->w2.view())});
      if (!pair.up.supported() || !pair.down.supported()) {
        fmt::print("{}: not offered by oneDNN on this CPU\n", name);
        return;
      }
      bytes = weights->w1.view().bytes() + weights->w2.view().bytes();
    }
    const DenseLayer& first = *dense_[dense_.size() - pairs->size()];
    const std::vector<float> hidden = random_floats(kTwinFf, 5);
    Exec exec{runtime_.team(), ws_};
    check_onednn(exec, pairs->front().up, first.w1.view(), {inputs_[0].data(), 1, kD, kD}, name);
    check_onednn(exec, pairs->front().down, first.w2.view(), {hidden.data(), 1, kTwinFf, kTwinFf}, name);
    benchmark::RegisterBenchmark(name.c_str(),
                                 [this, pairs](benchmark::State& state) {
                                   for (auto _ : state) {
                                     Pair& pair = (*pairs)[next_++ % pairs->size()];
                                     pair.up.run();
                                     pair.down.run();
                                   }
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
    comparison.rivals.push_back({name, bytes});
  }

  Runtime& runtime_;
  const DenseKernels& kernels_;
  Workspace ws_{std::size_t{1} << 26};
  std::vector<std::vector<float>> inputs_;
  std::deque<std::unique_ptr<SparseLayer>> sparse_;
  std::deque<std::unique_ptr<DenseLayer>> dense_;
  std::vector<Comparison> comparisons_;
  std::size_t next_ = 0;
};

void run(CommandLine& line) {
  Runtime runtime({.n_threads = line.take_threads()});
  const std::vector<DType> dtypes = line.take_dtypes();
  quiet_openmp(line, runtime.n_threads());
  start_comparisons(line);
  Bench bench(runtime, dense_kernels(isa_from_environment()));
  for (const DType dtype : dtypes) bench.add(dtype);
  run_comparisons(runtime, bench.comparisons());
}

}  // namespace
}  // namespace terrace::bench

int main(int argc, char** argv) { return terrace::bench::run_program(argc, argv, terrace::bench::run); }
