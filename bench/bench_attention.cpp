// SPDX-License-Identifier: Apache-2.0
// Attention of one decoded token over a long context: multi-head against grouped and multi-query, and exact
// against LSH attention. Caches are rotated so that keys and values come from memory. Beside that, what a
// layer of a decoded token pays for its own key and value: append, and append with attention over a short
// context. Shapes of the preset lm1b-24L.
//
//   bench_attention [--threads=N] [--dtype=f32|bf16|q8|q4] [Google Benchmark's flags]
#include <benchmark/benchmark.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <random>

#include "attention/causal_attention.h"
#include "attention/lsh_attention.h"
#include "bench/check.h"
#include "bench/comparison.h"
#include "bench/random_weight.h"
#include "bench/rotation.h"

namespace terrace::bench {
namespace {

constexpr std::size_t kHeads = 16;
constexpr std::size_t kHead = 64;
constexpr std::size_t kWidth = kHeads * kHead;
constexpr std::size_t kContexts[] = {1024, 8192, 65536};
constexpr std::size_t kRowsPerAppend = 256;
constexpr std::size_t kPrefillRows = 128;
constexpr std::size_t kInputs = 16;
constexpr std::size_t kHashes = 2;
constexpr std::size_t kRotations = 64;  // 128 buckets
/// Layers of a token, one cache each, and the slots that come and go in them.
constexpr std::size_t kLayers = 24;
constexpr std::size_t kShortest = 128;
constexpr std::size_t kLongest = 256;
constexpr std::size_t kTokens = 16;  // per figure: every place of a group of slots once

ConstRows rows_of(const std::vector<float>& x, std::size_t width) {
  return {x.data(), x.size() / width, width, width};
}

class Bench {
 public:
  explicit Bench(Runtime& runtime)
      : runtime_(runtime),
        kernels_(attention_kernels(isa_from_environment())),
        q_(random_floats((kInputs + kPrefillRows) * kWidth, 1)),
        k_(random_floats(kRowsPerAppend * kWidth, 2)),
        v_(random_floats(kRowsPerAppend * kWidth, 3)),
        rotations_(random_floats(kHeads * kHashes * kRotations * kHead, 4)) {}

  /// Multi-head attention against fewer KV heads, and against LSH attention.
  void add(KvType type) {
    for (const std::size_t n : kContexts) {
      const std::string suffix = std::string("/") + kv_type_name(type) + "/" + std::to_string(n);
      Comparison comparison{add_exact("multi_head" + suffix, type, n, kHeads),
                            {add_exact("grouped_4" + suffix, type, n, kHeads / 4),
                             add_exact("multi_query" + suffix, type, n, 1)}};
      if (n <= kContexts[1]) {
        comparison.rivals.push_back(
            add_exact("prefill_" + std::to_string(kPrefillRows) + suffix, type, n, kHeads, kPrefillRows));
      }
      comparison.rivals.push_back(add_lsh_step("lsh" + suffix, type, n));
      comparisons_.push_back(comparison);
    }
    const std::string suffix = std::string("/") + kv_type_name(type);
    comparisons_.push_back(
        {add_append("append" + suffix, type, false), {add_append("append_and_attend" + suffix, type, true)}});
  }

  const std::vector<Comparison>& comparisons() const noexcept { return comparisons_; }

 private:
  /// n slots of the same few hundred random rows: what they hold does not change the work.
  KvCache filled_cache(const CausalAttention& attention, KvType type, std::size_t n) {
    KvCache kv = attention.make_cache(type, n);
    const Exec exec{runtime_.team(), ws_};
    const std::size_t width = attention.n_kv_heads() * kHead;
    const ConstRows k{k_.data(), kRowsPerAppend, width, kWidth}, v{v_.data(), kRowsPerAppend, width, kWidth};
    for (std::size_t t = 0; t < n; t += kRowsPerAppend) {
      const std::size_t rows = std::min(kRowsPerAppend, n - t);
      kv.append(exec, k.slice(0, rows), v.slice(0, rows));
    }
    return kv;
  }

  /// `rows` query rows at the end of the context: one decoded token, or a pass of a prefill.
  Contender add_exact(const std::string& name, KvType type, std::size_t n, std::size_t n_kv_heads,
                      std::size_t rows = 1) {
    const CausalAttention attention(kernels_, kHeads, n_kv_heads, kHead, kHead);
    auto caches = std::make_shared<std::vector<KvCache>>();
    benchmark::RegisterBenchmark(name.c_str(),
                                 [=, this](benchmark::State& state) {
                                   if (caches->empty()) {
                                     fill_caches(attention, type, n, *caches);
                                     check_exact(attention, caches->front(), rows, name);
                                   }
                                   const Exec exec{runtime_.team(), ws_};
                                   const ThreadTeam::Region region(runtime_.team());
                                   std::vector<float> y(rows * kWidth);
                                   for (auto _ : state) {
                                     attention.forward(exec, (*caches)[next_ % caches->size()],
                                                       rows_of(q_, kWidth).slice(next_ % kInputs, rows),
                                                       {y.data(), rows, kWidth, kWidth});
                                     ++next_;
                                   }
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
    return {name, n * attention.make_cache(type, 1).bytes_per_slot()};
  }

  /// One token through the caches of all layers, per layer. What the layers do besides is a pass over more
  /// memory than the caches hold, untimed.
  Contender add_append(const std::string& name, KvType type, bool attend) {
    const CausalAttention attention(kernels_, kHeads, kHeads, kHead, kHead);
    auto caches = std::make_shared<std::vector<KvCache>>();
    benchmark::RegisterBenchmark(name.c_str(),
                                 [=, this](benchmark::State& state) {
                                   const Exec exec{runtime_.team(), ws_};
                                   while (caches->size() < kLayers) {
                                     caches->push_back(attention.make_cache(type, kLongest));
                                     caches->back().append(exec, rows_of(k_, kWidth).slice(0, kLongest),
                                                           rows_of(v_, kWidth).slice(0, kLongest));
                                   }
                                   const ThreadTeam::Region region(runtime_.team());
                                   std::vector<float> y(kWidth);
                                   for (auto _ : state) {
                                     pass_over_memory();
                                     const ConstRows row = rows_of(q_, kWidth).slice(next_++ % kInputs, 1);
                                     const auto start = std::chrono::steady_clock::now();
                                     for (KvCache& kv : *caches) {
                                       if (kv.length() == kLongest) kv.truncate(kShortest);
                                       kv.append(exec, row, row);
                                       if (attend)
                                         attention.forward(exec, kv, row, {y.data(), 1, kWidth, kWidth});
                                     }
                                     const std::chrono::duration<double> seconds =
                                         std::chrono::steady_clock::now() - start;
                                     state.SetIterationTime(seconds.count() / kLayers);
                                   }
                                 })
        ->UseManualTime()
        ->Iterations(kTokens)
        ->Unit(benchmark::kMicrosecond);
    const std::size_t slots = attend ? (kShortest + kLongest) / 2 : 1;
    return {name, slots * attention.make_cache(type, 1).bytes_per_slot()};
  }

  void pass_over_memory() {
    if (other_memory_.empty()) other_memory_.resize(bytes_in_rotation() / sizeof(float), 1.0F);
    const std::size_t part = other_memory_.size() / runtime_.n_threads();
    runtime_.team().run(runtime_.n_threads(), [&](std::uint32_t i) {
      float sum = 0;
      for (std::size_t at = i * part; at < (i + 1) * part; at += kCacheLine / sizeof(float)) {
        sum += other_memory_[at];
      }
      benchmark::DoNotOptimize(sum);
    });
  }

  /// Caches of n slots, as many as are in rotation: made when the figure is first wanted.
  void fill_caches(const CausalAttention& attention, KvType type, std::size_t n,
                   std::vector<KvCache>& caches) {
    const std::size_t wanted = bytes_in_rotation();
    for (std::size_t bytes = 0; bytes < wanted; bytes += n * caches.back().bytes_per_slot()) {
      caches.push_back(filled_cache(attention, type, n));
    }
  }

  void check_exact(const CausalAttention& attention, const KvCache& cache, std::size_t rows,
                   const std::string& name) {
    const Exec exec{runtime_.team(), ws_};
    const CausalAttention scalar(attention_kernels(Isa::kScalar), kHeads, attention.n_kv_heads(), kHead,
                                 kHead);
    std::vector<float> y(rows * kWidth), expected(rows * kWidth);
    const ConstRows q = rows_of(q_, kWidth).slice(0, rows);
    attention.forward(exec, cache, q, {y.data(), rows, kWidth, kWidth});
    scalar.forward(exec, cache, q, {expected.data(), rows, kWidth, kWidth});
    require(y == expected, name);
  }

  Contender add_lsh_step(const std::string& name, KvType type, std::size_t n) {
    LshConfig config{kHeads, kHead, kHead};
    config.n_hashes = kHashes;
    config.n_buckets = {2 * kRotations};
    config.mem_len = n + kInputs;
    const LshAttention attention(kernels_, config, rotations_.data(), kRotations);
    const LshAttention scalar(attention_kernels(Isa::kScalar), config, rotations_.data(), kRotations);
    auto states = std::make_shared<std::vector<LshState>>();
    const auto step = [this](const LshAttention& layer, LshState& state, std::size_t input, float* out) {
      const Exec exec{runtime_.team(), ws_};
      layer.step(exec, state, rows_of(q_, kWidth).slice(input, 1), rows_of(v_, kWidth).slice(input, 1),
                 {out, 1, kWidth, kWidth});
      state.truncate(state.length() - 1);
    };
    benchmark::RegisterBenchmark(name.c_str(),
                                 [=, this](benchmark::State& state) {
                                   const ThreadTeam::Region held(runtime_.team());
                                   std::vector<float> out(kWidth);
                                   if (states->empty()) {
                                     fill_states(attention, type, n, *states);
                                     std::vector<float> expected(kWidth);
                                     step(attention, states->front(), 0, out.data());
                                     step(scalar, states->front(), 0, expected.data());
                                     require(out == expected, name);
                                   }
                                   for (auto _ : state) {
                                     step(attention, (*states)[next_ % states->size()], next_ % kInputs,
                                          out.data());
                                     ++next_;
                                   }
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
    return {name, kHeads * attention.budget() * SlotRows(type, kHead, kHead).slot_bytes()};
  }

  /// States of n slots in buckets drawn as those of random rows would be; what the rows hold does not change
  /// the work.
  void fill_states(const LshAttention& attention, KvType type, std::size_t n, std::vector<LshState>& states) {
    const std::size_t wanted = bytes_in_rotation();
    for (std::size_t bytes = 0; bytes < wanted; bytes += states.back().bytes()) {
      states.push_back(attention.make_state(type, n + kInputs));
      std::mt19937 random(5);
      for (std::size_t t = 0; t < n; ++t) {
        for (std::size_t h = 0; h < kHeads; ++h) {
          std::uint32_t buckets[kHashes];
          for (std::uint32_t& bucket : buckets) bucket = random() % (2 * kRotations);
          const std::size_t at = (t % kRowsPerAppend) * kWidth + h * kHead;
          states.back().write(h, t, k_.data() + at, v_.data() + at, buckets);
        }
      }
      states.back().set_length(n);
    }
  }

  Runtime& runtime_;
  Workspace ws_{std::size_t{1} << 28};
  const AttentionKernels& kernels_;
  std::vector<float> q_, k_, v_;
  std::vector<float> rotations_;
  std::vector<float> other_memory_;
  std::vector<Comparison> comparisons_;
  std::size_t next_ = 0;
};

void run(CommandLine& line) {
  Runtime runtime({.n_threads = line.take_threads()});
  const std::vector<DType> dtypes = line.take_dtypes();
  start_comparisons(line);
  Bench bench(runtime);
  for (const DType dtype : dtypes) {
    if (dtype == DType::kF32) bench.add(KvType::kF32);
    if (dtype == DType::kBf16) bench.add(KvType::kBf16);
    if (dtype == DType::kQ8) bench.add(KvType::kQ8);
    if (dtype == DType::kQ4) bench.add(KvType::kQ4);
  }
  run_comparisons(runtime, bench.comparisons());
}

}  // namespace
}  // namespace terrace::bench

int main(int argc, char** argv) { return terrace::bench::run_program(argc, argv, terrace::bench::run); }
