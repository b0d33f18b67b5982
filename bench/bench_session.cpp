// SPDX-License-Identifier: Apache-2.0
// What programs do with a conversation between its tokens (fork, rewind, save, load) beside a token, and
// beside what they would do otherwise: read the context once more. The sparse model of a preset with random
// weights; results are checked against decoding before they are timed.
//
//   token                       decode()
//   fork                        fork(), and the end of the copy
//   fork_and_token              fork(), the first token of the copy, and its end
//   rewind:1, rewind:64         back over so many tokens; recomputes those from the last snapshot on
//   rewind:1/marked             back to a mark
//   save, load                  of a file in the folder for temporary files
//   read_again                  prefill() of the context
//
//   bench_session [--threads=N] [--dtype=NAME] [--preset=NAME] [--depth=N] [Google Benchmark's flags]
#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/check.h"
#include "bench/command_line.h"
#include "bench/comparison.h"
#include "bench/lazy.h"
#include "bench/random_model.h"
#include "engine/error.h"
#include "models/presets.h"
#include "models/session.h"

namespace terrace::bench {
namespace {

/// Tokens decoded after the context, at most.
constexpr std::size_t kAfter = 128;

/// A session that has read a context, and a file with its state.
class Conversation {
 public:
  Conversation(const ModelConfig& config, DType dtype, std::size_t depth, Runtime& runtime)
      : model_(random_model(config, dtype)),
        options_{.max_context = depth + kAfter, .kv_type = is_quantized(dtype) ? KvType::kQ8 : KvType::kF32},
        context_(random_tokens(*model_, 0, depth)),
        path_(temporary_file("bench_session")),
        session_(model_, runtime, options_) {
    session_.prefill(context_);
    session_.save(path_);
  }
  Conversation(Conversation&&) = delete;
  Conversation& operator=(Conversation&&) = delete;
  ~Conversation() { std::filesystem::remove(path_); }

  Session& session() noexcept { return session_; }
  const std::string& path() const noexcept { return path_; }
  const std::vector<TokenId>& context() const noexcept { return context_; }
  Session empty(Runtime& runtime) const { return Session(model_, runtime, options_); }
  /// The next token: another one every time.
  TokenId next() { return random_tokens(*model_, context_.size() + n_++, 1)[0]; }

 private:
  std::shared_ptr<const Model> model_;
  Session::Options options_;
  std::vector<TokenId> context_;
  std::string path_;
  Session session_;
  std::size_t n_ = 0;
};

std::vector<float> logits_after(Session& session, TokenId token) {
  const std::span<const float> logits = session.decode(token);
  return {logits.begin(), logits.end()};
}

class Bench {
 public:
  using Lazily = std::shared_ptr<Lazy<std::unique_ptr<Conversation>>>;

  explicit Bench(Runtime& runtime) : runtime_(runtime) {}

  void add(const std::string& preset, DType dtype, std::size_t depth) {
    const ModelConfig config = decoder_as_language_model(preset_config(preset, /*dense=*/false));
    TERRACE_CHECK(depth + kAfter <= config.max_context, kBadArgument,
                  fmt::format("--depth: {} has room for {} tokens, found {}", preset,
                              config.max_context - kAfter, depth));
    const Lazily lazy = std::make_shared<Lazy<std::unique_ptr<Conversation>>>([=, this] {
      auto made = std::make_unique<Conversation>(config, dtype, depth, runtime_);
      check(*made);
      return made;
    });
    prefix_ = fmt::format("{}/{}/{}", preset, dtype_name(dtype), depth);
    Comparison comparison;
    comparison.subject = figure("token", lazy, [](Conversation& c, auto time) {
      time([&] { c.session().decode(c.next()); });
      c.session().rewind(c.context().size());
    });
    const auto add_rival = [&](const char* name, auto run) {
      comparison.rivals.push_back(figure(name, lazy, run));
    };
    add_rival("fork", [](Conversation& c, auto time) {
      time([&] { benchmark::DoNotOptimize(c.session().fork().position()); });
    });
    add_rival("fork_and_token",
              [](Conversation& c, auto time) { time([&] { c.session().fork().decode(c.next()); }); });
    for (const std::size_t n : {1, 64}) {
      add_rival(n == 1 ? "rewind:1" : "rewind:64", [n](Conversation& c, auto time) {
        for (std::size_t i = 0; i < n; ++i) c.session().decode(c.next());
        c.session().mark();  // and with that no other position is marked
        time([&] { c.session().rewind(c.context().size()); });
      });
    }
    add_rival("rewind:1/marked", [](Conversation& c, auto time) {
      c.session().mark();
      c.session().decode(c.next());
      time([&] { c.session().rewind(c.context().size()); });
    });
    add_rival("save", [](Conversation& c, auto time) { time([&] { c.session().save(c.path()); }); });
    add_rival("load", [](Conversation& c, auto time) { time([&] { c.session().load(c.path()); }); });
    add_rival("read_again", [this](Conversation& c, auto time) {
      Session session = c.empty(runtime_);
      time([&] { session.prefill(c.context()); });
    });
    comparisons_.push_back(std::move(comparison));
  }

  const std::vector<Comparison>& comparisons() const noexcept { return comparisons_; }

 private:
  /// Registers a figure: `run` calls what it is given with what is to be timed.
  template <class Run>
  Contender figure(const char* what, const Lazily& lazy, Run run) {
    const std::string name = prefix_ + "/" + what;
    const auto measure = [lazy, run](benchmark::State& state) {
      Conversation& conversation = *lazy->get();
      const auto region = conversation.session().hold();
      for (auto _ : state) {
        run(conversation, [&](auto&& timed) {
          const auto start = std::chrono::steady_clock::now();
          timed();
          const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
          state.SetIterationTime(seconds.count());
        });
      }
    };
    benchmark::RegisterBenchmark(name.c_str(), measure)->UseManualTime()->Unit(benchmark::kMicrosecond);
    return {name};
  }

  /// A fork, a session that went back, and one that was loaded all go on as the session itself.
  void check(Conversation& c) {
    const TokenId token = c.next();
    const std::size_t depth = c.context().size();
    Session fork = c.session().fork(), loaded = c.empty(runtime_);
    loaded.load(c.path());
    const std::vector<float> expected = logits_after(c.session(), token);
    require(logits_after(fork, token) == expected, "fork");
    require(logits_after(loaded, token) == expected, "load");
    c.session().rewind(depth);
    require(logits_after(c.session(), token) == expected, "rewind");
    c.session().rewind(depth);
  }

  Runtime& runtime_;
  std::string prefix_;
  std::vector<Comparison> comparisons_;
};

void run(CommandLine& line) {
  const std::string preset = line.take("preset", "NAME").value_or("lm1b-24L");
  const std::size_t depth = line.take_number("depth", 65, 1U << 28).value_or(1000);
  Runtime runtime({.n_threads = line.take_threads()});
  const std::vector<DType> dtypes = line.take_dtypes();
  start_comparisons(line);
  Bench bench(runtime);
  for (const DType dtype : dtypes) bench.add(preset, dtype, depth);
  run_comparisons(runtime, bench.comparisons());
}

}  // namespace
}  // namespace terrace::bench

int main(int argc, char** argv) { return terrace::bench::run_program(argc, argv, terrace::bench::run); }
