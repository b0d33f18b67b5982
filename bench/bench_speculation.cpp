// SPDX-License-Identifier: Apache-2.0
// What speculation can gain, and what it does gain.
//
// pass/...: Session::verify of T tokens beside one token decoded, both after the same context, for a preset's
// sparse model and its dense twin with random weights. The fewer times as long a pass of T takes, the fewer
// guesses need be right.
// text/...: a trained model continues documents, sampled as `terrace generate` does by default or greedily,
// alone and with each draft; the same texts every time. Counters: tokens per pass of the full width, share of
// the guesses that were right.
//
//   bench_speculation [--threads=N] [--dtype=NAME] [--preset=NAME] [--model=FILE] [--document=FILE]
//                     [Google Benchmark's flags]
#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>

#include "bench/check.h"
#include "bench/command_line.h"
#include "bench/comparison.h"
#include "bench/lazy.h"
#include "bench/random_model.h"
#include "engine/error.h"
#include "models/draw_next.h"
#include "models/presets.h"
#include "models/speculation.h"

namespace terrace::bench {
namespace {

constexpr std::size_t kContext = 96;      // before a pass
constexpr std::size_t kDocument = 1024;   // tokens before a text, at most
constexpr std::size_t kTextTokens = 128;  // of a text
constexpr std::size_t kTexts = 8;         // with a seed each

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  TERRACE_CHECK(file.good(), kIo, "cannot read '" + path + "'");
  return {std::istreambuf_iterator<char>(file), {}};
}

SamplerConfig greedy() {
  SamplerConfig config;
  config.temperature = 0;
  return config;
}

class Bench {
 public:
  explicit Bench(Runtime& runtime) : runtime_(runtime) {}

  void add_passes(const std::string& preset, bool dense, DType dtype) {
    const auto session =
        std::make_shared<Lazy<Session>>([this, config = preset_config(preset, dense), dtype] {
          Session made(random_model(config, dtype), runtime_, Session::Options{.max_context = 1024});
          made.prefill(random_tokens(made.model(), 0, kContext));
          return made;
        });
    const std::string prefix =
        fmt::format("pass/{}/{}/{}", preset, dense ? "dense" : "sparse", dtype_name(dtype));
    Comparison comparison;
    comparison.subject.name = prefix + "/decode";
    add_pass(comparison.subject.name, session, 1,
             [](Session& s, std::span<const TokenId> ids) { s.decode(ids[0]); });
    for (const std::size_t n : {2, 4, 8, 16}) {
      comparison.rivals.push_back({fmt::format("{}/tokens:{}", prefix, n)});
      add_pass(comparison.rivals.back().name, session, n, [](Session& s, std::span<const TokenId> ids) {
        s.verify(ids, [](std::size_t, std::span<const float>) {});
      });
    }
    comparisons_.push_back(std::move(comparison));
  }

  void add_texts(const std::shared_ptr<const Model>& model, const std::string& document) {
    const auto read = std::make_shared<Lazy<Session>>([this, model, document] {
      Session made(model, runtime_);
      TERRACE_CHECK(made.max_context() > kTextTokens, kBadArgument,
                    fmt::format("--model: texts of {} tokens need a longer context than {}", kTextTokens,
                                made.max_context()));
      std::vector<TokenId> ids = model->tokenizer().encode(content_of(document));
      TERRACE_CHECK(!ids.empty(), kBadArgument, fmt::format("--document: '{}' has no tokens", document));
      ids.resize(std::min({ids.size(), kDocument, made.max_context() - kTextTokens}));
      made.prefill(ids);
      return made;
    });
    for (const bool sampled : {false, true}) {
      const std::string prefix = sampled ? "text/sampled" : "text/greedy";
      Comparison comparison;
      comparison.subject.name = prefix + "/alone";
      add_text(comparison.subject.name, read, sampled, [](Session&, const Sampler&) { return nullptr; });
      comparison.rivals.push_back({prefix + "/lookup"});
      add_text(comparison.rivals.back().name, read, sampled,
               [](Session&, const Sampler&) { return std::make_unique<LookupDraft>(); });
      for (const std::uint32_t width : model->config().decoder.ff.widths) {
        if (width == model->config().d_ff) continue;
        comparison.rivals.push_back({fmt::format("{}/width:{}", prefix, width)});
        add_text(comparison.rivals.back().name, read, sampled, [width](Session& session, const Sampler& s) {
          return std::make_unique<NestedDraft>(session, std::span(&width, 1), s);
        });
      }
      comparisons_.push_back(std::move(comparison));
    }
  }

  const std::vector<Comparison>& comparisons() const noexcept { return comparisons_; }

 private:
  template <class F>
  void add(const std::string& name, F&& fn) {
    benchmark::RegisterBenchmark(name.c_str(), std::forward<F>(fn))
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  }

  /// `pass` of n tokens after kContext others; going back there is not timed.
  template <class Pass>
  void add_pass(const std::string& name, const std::shared_ptr<Lazy<Session>>& lazy, std::size_t n,
                Pass pass) {
    const auto run = [this, lazy, n, pass](benchmark::State& state) {
      Session& session = lazy->get();
      const auto region = session.hold();
      session.mark();
      for (auto _ : state) {
        const std::vector<TokenId> ids = random_tokens(session.model(), n * next_++, n);
        const auto start = std::chrono::steady_clock::now();
        pass(session, ids);
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        session.rewind(kContext);
        state.SetIterationTime(seconds.count());
      }
    };
    benchmark::RegisterBenchmark(name.c_str(), run)->UseManualTime()->Unit(benchmark::kMicrosecond);
  }

  /// One text; without a draft by decoding alone.
  static std::vector<TokenId> text(Session& session, const SamplerConfig& config, const auto& make_draft,
                                   SpeculationStats& stats) {
    Sampler sampler(config, session.model().config().vocab_size);
    std::unique_ptr<Draft> draft = make_draft(session, sampler);
    std::optional<Speculation> speculation;
    if (draft) speculation.emplace(session, sampler, std::move(draft), Speculation::Options{});
    std::vector<TokenId> ids = {sampler.sample(session.logits(), session.tokens())};
    while (ids.size() < kTextTokens) {
      const TokenId last = ids.back();
      ids.push_back(speculation ? speculation->feed(last) : draw_next(session, sampler, last));
    }
    if (speculation) stats = speculation->stats();
    return ids;
  }

  /// Its text is checked against plain decoding before it is timed for the first time.
  template <class MakeDraft>
  void add_text(const std::string& name, const std::shared_ptr<Lazy<Session>>& lazy, bool sampled,
                MakeDraft make_draft) {
    const auto config_of = [sampled](std::size_t seed) {
      SamplerConfig config = sampled ? SamplerConfig{} : greedy();
      config.seed = seed;
      return config;
    };
    const auto check = [name, lazy, config_of, make_draft] {
      SpeculationStats stats;
      Session plain = lazy->get().fork(), drafted = lazy->get().fork();
      const auto alone = [](Session&, const Sampler&) { return std::unique_ptr<Draft>(); };
      require(text(drafted, config_of(0), make_draft, stats) == text(plain, config_of(0), alone, stats),
              name);
      return true;
    };
    add(name, [this, lazy, config_of, make_draft,
               checked = std::make_shared<Lazy<bool>>(check)](benchmark::State& state) {
      checked->get();
      const Session& read = lazy->get();
      SpeculationStats of_text, all;
      for (auto _ : state) {
        state.PauseTiming();
        Session session = read.fork();
        const auto region = session.hold();
        state.ResumeTiming();
        benchmark::DoNotOptimize(text(session, config_of(next_++ % kTexts), make_draft, of_text));
        all.n_passes += of_text.n_passes;
        all.n_drafted += of_text.n_drafted;
        all.n_right += of_text.n_right;
      }
      const auto ratio = [](std::size_t a, std::size_t b) {
        return b > 0 ? static_cast<double>(a) / static_cast<double>(b) : 0.0;
      };
      state.counters["per_pass"] =
          all.n_passes > 0 ? ratio(kTextTokens * static_cast<std::size_t>(state.iterations()), all.n_passes)
                           : 1;
      state.counters["right"] = ratio(all.n_right, all.n_drafted);
    });
  }

  Runtime& runtime_;
  std::vector<Comparison> comparisons_;
  std::size_t next_ = 0;
};

void run(CommandLine& line) {
  const std::string preset = line.take("preset", "NAME").value_or("lm1b-24L");
  const std::string default_model = "models/default/default.terrace";
  const std::optional<std::string> model = line.take("model", "FILE");
  const std::string document = line.take("document", "FILE").value_or("examples/document.txt");
  Runtime runtime({.n_threads = line.take_threads()});
  const std::vector<DType> dtypes = line.take_dtypes();
  start_comparisons(line);
  Bench bench(runtime);
  for (const DType dtype : dtypes) {
    bench.add_passes(preset, false, dtype);
    bench.add_passes(preset, true, dtype);
  }
  if (model || std::filesystem::exists(default_model)) {
    bench.add_texts(Model::load(model.value_or(default_model)), document);
  } else {
    fmt::print(stderr, "text/... left out: there is no '{}' here; --model=FILE names another\n",
               default_model);
  }
  run_comparisons(runtime, bench.comparisons());
}

}  // namespace
}  // namespace terrace::bench

int main(int argc, char** argv) { return terrace::bench::run_program(argc, argv, terrace::bench::run); }
