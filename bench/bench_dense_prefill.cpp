// SPDX-License-Identifier: Apache-2.0
// Prefill of dense models: every linear map of a layer over many tokens, ours beside oneDNN's, with the same
// weights and threads. Ours starts from f32 rows, quantises them and returns scaled f32; oneDNN is given its
// rows quantised, its weights packed, and leaves out the scales, so the comparison is to its advantage.
// Attention, norms and activations are in neither.
//
//   bench_dense_prefill [--threads=N] [--dtype=NAME] [Google Benchmark's flags]
#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include <memory>
#include <span>
#include <vector>

#include "bench/check.h"
#include "bench/comparison.h"
#include "bench/onednn_dense.h"
#include "bench/quiet_openmp.h"
#include "bench/random_weight.h"
#include "engine/linear.h"
#include "models/presets.h"

namespace terrace::bench {
namespace {

/// One linear map in both engines, with an input and an output of its own.
class Map {
 public:
  Map(Exec& exec, const DenseKernels& kernels, DType dtype, std::size_t d_out, std::size_t d_in,
      std::size_t n_tokens)
      : weight_(dtype, d_out, d_in, d_out + d_in),
        linear_(kernels, weight_.view(), nullptr),
        onednn_(weight_.view(), n_tokens),
        x_(random_floats(n_tokens * d_in, 2)),
        y_(n_tokens * d_out) {
    check(exec, kernels, dtype);
  }

  bool has_onednn() const noexcept { return onednn_.supported(); }
  std::size_t multiply_adds() const noexcept { return x_.size() * linear_.d_out(); }
  void run(Exec& exec) { linear_.forward(exec, input(), output()); }
  void run_onednn() { onednn_.run(); }

 private:
  ConstRows input() const { return {x_.data(), x_.size() / linear_.d_in(), linear_.d_in(), linear_.d_in()}; }
  Rows output() { return {y_.data(), y_.size() / linear_.d_out(), linear_.d_out(), linear_.d_out()}; }

  /// Ours equals the specification on some outputs, and oneDNN's agrees with it.
  void check(Exec& exec, const DenseKernels& kernels, DType dtype) {
    constexpr std::size_t kChecked = 8;
    run(exec);
    const Workspace::Scope scope(exec.ws);
    const PreparedRows prepared(exec, kernels, dtype, input());
    std::vector<float> expected(prepared.size() * kChecked);
    dot_rows(dense_kernels(Isa::kScalar), weight_.view(), 0, kChecked, prepared, expected.data(), kChecked);
    for (std::size_t t = 0; t < prepared.size(); ++t) {
      for (std::size_t r = 0; r < kChecked; ++r) {
        require(y_[t * linear_.d_out() + r] == expected[t * kChecked + r], "linear map");
      }
    }
    if (has_onednn()) check_onednn(exec, onednn_, weight_.view(), input(), "oneDNN's linear map");
  }

  RandomWeight weight_;
  Linear linear_;
  OneDnnDense onednn_;
  std::vector<float> x_, y_;
};

/// The maps of one layer of a preset's dense model.
class Layer {
 public:
  Layer(Exec& exec, const DenseKernels& kernels, DType dtype, const ModelConfig& config,
        std::size_t n_tokens) {
    const std::size_t d = config.d_model;
    const auto add = [&](std::size_t d_out, std::size_t d_in) {
      maps_.push_back(std::make_unique<Map>(exec, kernels, dtype, d_out, d_in, n_tokens));
    };
    for (int i = 0; i < 4; ++i) add(d, d);  // q, k, v, out
    for (int i = 0; i < (config.decoder.ff.gated ? 2 : 1); ++i) add(config.d_ff, d);
    add(d, config.d_ff);
  }

  std::span<const std::unique_ptr<Map>> maps() const noexcept { return maps_; }
  bool has_onednn() const noexcept { return maps_.front()->has_onednn(); }
  double multiply_adds() const noexcept {
    double sum = 0;
    for (const auto& map : maps_) sum += static_cast<double>(map->multiply_adds());
    return sum;
  }

 private:
  std::vector<std::unique_ptr<Map>> maps_;
};

void report(benchmark::State& state, const Layer& layer, std::size_t n_tokens) {
  using benchmark::Counter;
  state.counters["layer_tokens/s"] =
      Counter(static_cast<double>(n_tokens), Counter::kIsIterationInvariantRate);
  state.counters["GMAC/s"] = Counter(layer.multiply_adds() * 1e-9, Counter::kIsIterationInvariantRate);
}

void add(Runtime& runtime, Workspace& ws, const DenseKernels& kernels, DType dtype, const char* preset,
         std::size_t n_tokens, std::vector<Comparison>& comparisons) {
  Exec setup{runtime.team(), ws};
  const auto layer =
      std::make_shared<Layer>(setup, kernels, dtype, preset_config(preset, /*dense=*/true), n_tokens);
  const std::string suffix = fmt::format("/{}/{}/tokens:{}", preset, dtype_name(dtype), n_tokens);
  Comparison comparison{{"layer" + suffix}, {}};
  benchmark::RegisterBenchmark(comparison.subject.name.c_str(),
                               [=, &runtime, &ws](benchmark::State& state) {
                                 Exec exec{runtime.team(), ws};
                                 const ThreadTeam::Region region(runtime.team());
                                 for (auto _ : state) {
                                   for (const auto& map : layer->maps()) map->run(exec);
                                 }
                                 report(state, *layer, n_tokens);
                               })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
  if (layer->has_onednn()) {
    comparison.rivals.push_back({"onednn_layer" + suffix});
    benchmark::RegisterBenchmark(comparison.rivals.back().name.c_str(),
                                 [=](benchmark::State& state) {
                                   for (auto _ : state) {
                                     for (const auto& map : layer->maps()) map->run_onednn();
                                   }
                                   report(state, *layer, n_tokens);
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
  comparisons.push_back(comparison);
}

void run(CommandLine& line) {
  Runtime runtime({.n_threads = line.take_threads()});
  const std::vector<DType> dtypes = line.take_dtypes();
  quiet_openmp(line, runtime.n_threads());
  start_comparisons(line);
  Workspace ws(std::size_t{1} << 26);
  std::vector<Comparison> comparisons;
  for (const DType dtype : dtypes) {
    for (const char* preset : {"lm1b-24L", "llama-0.8B"}) {
      for (const std::size_t n_tokens : {32, 256}) {
        add(runtime, ws, dense_kernels(isa_from_environment()), dtype, preset, n_tokens, comparisons);
      }
    }
  }
  run_comparisons(runtime, comparisons);
}

}  // namespace
}  // namespace terrace::bench

int main(int argc, char** argv) { return terrace::bench::run_program(argc, argv, terrace::bench::run); }
