// SPDX-License-Identifier: Apache-2.0
#include "models/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/error.h"
#include "engine/largest.h"
#include "engine/threefry.h"

namespace terrace {
namespace {

/// Uniform in [0, 1) with 53 bits, a function of seed and position only.
double uniform_at(std::uint64_t seed, std::uint64_t position) {
  const auto words = threefry_block(threefry_key(seed), static_cast<std::uint32_t>(position >> 32),
                                    static_cast<std::uint32_t>(position));
  const std::uint64_t bits = static_cast<std::uint64_t>(words[0]) << 32 | words[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

/// The last `last_n` tokens; all for -1.
std::span<const TokenId> window_of(std::span<const TokenId> context, std::int32_t last_n) {
  if (last_n < 0 || static_cast<std::size_t>(last_n) >= context.size()) return context;
  return context.last(static_cast<std::size_t>(last_n));
}

/// +inf counts as the largest finite float.
float finite(float z) noexcept { return std::min(z, std::numeric_limits<float>::max()); }

bool has_penalties(const SamplerConfig& c) noexcept {
  return c.repeat_penalty != 1 || c.frequency_penalty != 0 || c.presence_penalty != 0;
}

bool changes_anything(const SamplerConfig& c, SamplerStep step) noexcept {
  switch (step) {
    case SamplerStep::kPenalties:
      return has_penalties(c);
    case SamplerStep::kTopK:
      return c.top_k > 0;
    case SamplerStep::kTopP:
      return c.top_p < 1;
    case SamplerStep::kMinP:
      return c.min_p > 0;
    case SamplerStep::kTemperature:
      return c.temperature != 1;
  }
  return true;
}

/// So many of the largest logits are all that the chain looks at; 0 if it looks at all of them.
std::size_t largest_needed(const SamplerConfig& c, std::uint32_t vocab_size) {
  const auto has = [&](SamplerStep step) {
    return std::find(c.order.begin(), c.order.end(), step) != c.order.end() && changes_anything(c, step);
  };
  if (has(SamplerStep::kPenalties)) return 0;
  // Every other step keeps the largest.
  if (has(SamplerStep::kTemperature) && c.temperature <= 0) return 1;
  const auto first = std::find_if(c.order.begin(), c.order.end(),
                                  [&](SamplerStep step) { return changes_anything(c, step); });
  const bool is_top_k = first != c.order.end() && *first == SamplerStep::kTopK && !c.top_k_keeps_ties;
  return is_top_k && static_cast<std::uint32_t>(c.top_k) < vocab_size ? static_cast<std::size_t>(c.top_k) : 0;
}

void check(const SamplerConfig& c) {
  const auto require = [](bool holds, const std::string& what, double found) {
    TERRACE_CHECK(holds, kBadArgument, "sampler: " + what + ", found " + std::to_string(found));
  };
  const double largest = std::numeric_limits<double>::max();
  // Below 1e-6 a logit divided by the temperature may leave the range in which differences are exact enough.
  require(c.temperature <= 0 || (c.temperature >= 1e-6 && c.temperature <= largest),
          "temperature must be 0 (greedy) or at least 1e-6", c.temperature);
  require(c.top_p >= 0 && c.top_p <= 1, "top_p must be in 0 .. 1", c.top_p);
  require(c.min_p >= 0 && c.min_p <= 1, "min_p must be in 0 .. 1", c.min_p);
  require(c.repeat_penalty > 0 && c.repeat_penalty <= largest, "repeat_penalty must be positive",
          c.repeat_penalty);
  require(std::isfinite(c.frequency_penalty), "frequency_penalty must be finite", c.frequency_penalty);
  require(std::isfinite(c.presence_penalty), "presence_penalty must be finite", c.presence_penalty);
  require(c.repeat_last_n >= -1, "repeat_last_n must be -1 (all) or more", c.repeat_last_n);
  for (auto step = c.order.begin(); step != c.order.end(); ++step) {
    TERRACE_CHECK(std::find(step + 1, c.order.end(), *step) == c.order.end(), kBadArgument,
                  "sampler: a step occurs twice in the order");
  }
}

}  // namespace

/// Whether one candidate ranks before another: larger logit, then smaller id.
struct Sampler::ByRank {
  bool operator()(const Candidate& a, const Candidate& b) const {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  }
};

Sampler::Sampler(const SamplerConfig& config, std::uint32_t vocab_size)
    : config_(config),
      vocab_size_(vocab_size),
      n_first_(largest_needed(config, vocab_size)),
      storage_(vocab_size),
      result_(vocab_size),
      counts_(vocab_size) {
  check(config);
}

TokenId Sampler::sample(std::span<const float> logits, std::span<const TokenId> context) {
  const auto outcomes = distribution(logits, context);
  const double u = uniform_at(config_.seed, context.size());
  double below = 0;
  for (const TokenProbability& outcome : outcomes) {
    below += outcome.probability;
    if (u < below) return outcome.id;
  }
  return outcomes.back().id;  // rounding left the sum a little below u
}

std::span<const TokenProbability> Sampler::distribution(std::span<const float> logits,
                                                        std::span<const TokenId> context) {
  TERRACE_CHECK(
      logits.size() == vocab_size_, kBadArgument,
      "sampler: expected " + std::to_string(vocab_size_) + " logits, found " + std::to_string(logits.size()));
  run_chain(logits, context);
  const auto kept = candidates();
  if (!in_id_order_) {
    std::sort(kept.begin(), kept.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  }
  const double largest = largest_logit();
  double sum = 0;
  std::size_t n = 0;
  for (const Candidate& c : kept) {
    const double weight = std::exp(c.logit - largest);
    result_[n] = {c.id, weight};
    n += weight > 0 ? 1 : 0;
    sum += weight;
  }
  const std::span outcomes(result_.data(), n);
  for (TokenProbability& outcome : outcomes) outcome.probability /= sum;
  return outcomes;
}

void Sampler::run_chain(std::span<const float> logits, std::span<const TokenId> context) {
  if (n_first_ > 0) {
    collect_largest(logits);
  } else {
    collect(logits);
  }
  TERRACE_CHECK(n_candidates_ > 0, kBadArgument,
                "sampler: no token can be drawn at position " + std::to_string(context.size()) + ": all " +
                    std::to_string(logits.size()) + " logits are NaN or -inf");
  for (const SamplerStep step : config_.order) run(step, context);
}

void Sampler::collect(std::span<const float> logits) {
  std::size_t n = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    storage_[n] = {static_cast<TokenId>(i), finite(logits[i])};
    n += logits[i] > -std::numeric_limits<float>::infinity() ? 1 : 0;  // not for NaN
  }
  n_candidates_ = n;
  in_id_order_ = true;
}

void Sampler::collect_largest(std::span<const float> logits) {
  // Logits above the last of the largest so far are put behind these; when four times as many as needed have
  // come together, the largest of them are kept. Ids ascend, so one that ties with the last stays outside.
  constexpr std::size_t kRun = 64;
  const std::size_t most = std::min<std::size_t>(4 * n_first_, vocab_size_);
  const auto first = storage_.begin();
  float limit = -std::numeric_limits<float>::infinity();
  std::size_t n = 0;
  const auto keep_largest = [&] {
    const auto last = first + static_cast<std::ptrdiff_t>(n_first_ - 1);
    std::nth_element(first, last, first + static_cast<std::ptrdiff_t>(n), ByRank{});
    limit = static_cast<float>(last->logit);  // a float, as nothing has changed it yet
    n = n_first_;
  };
  for (std::size_t begin = 0; begin < logits.size(); begin += kRun) {
    const auto run = logits.subspan(begin, std::min(kRun, logits.size() - begin));
    if (!Largest::any_at_least(run.data(), run.size(), limit)) continue;  // as in most runs
    for (std::size_t i = 0; i < run.size(); ++i) {
      const float z = finite(run[i]);
      if (!(z > limit)) continue;  // nor NaN
      storage_[n++] = {static_cast<TokenId>(begin + i), z};
      if (n == most) keep_largest();
    }
  }
  if (n > n_first_) keep_largest();
  std::sort(first, first + static_cast<std::ptrdiff_t>(n), ByRank{});
  n_candidates_ = n;
  in_id_order_ = n < 2;
}

void Sampler::run(SamplerStep step, std::span<const TokenId> context) {
  switch (step) {
    case SamplerStep::kPenalties:
      return apply_penalties(window_of(context, config_.repeat_last_n));
    case SamplerStep::kTopK:
      return keep_top_k();
    case SamplerStep::kTopP:
      return keep_top_p();
    case SamplerStep::kMinP:
      return keep_min_p();
    case SamplerStep::kTemperature:
      return apply_temperature();
  }
}

void Sampler::apply_penalties(std::span<const TokenId> window) {
  if (!has_penalties(config_)) return;
  const double repeat = config_.repeat_penalty;
  for (const TokenId id : window) {
    TERRACE_CHECK(id >= 0 && static_cast<std::uint32_t>(id) < vocab_size_, kBadToken,
                  "sampler: the context holds token id " + std::to_string(id) +
                      ", outside the vocabulary 0 .. " +
                      std::to_string(static_cast<std::int64_t>(vocab_size_) - 1));
  }
  for (const TokenId id : window) ++counts_[static_cast<std::size_t>(id)];
  for (Candidate& c : candidates()) {
    const std::uint32_t count = counts_[static_cast<std::size_t>(c.id)];
    if (count == 0) continue;
    c.logit = c.logit > 0 ? c.logit / repeat : c.logit * repeat;
    c.logit -= count * config_.frequency_penalty + config_.presence_penalty;
  }
  for (const TokenId id : window) counts_[static_cast<std::size_t>(id)] = 0;
}

void Sampler::keep_top_k() {
  if (config_.top_k <= 0 || static_cast<std::size_t>(config_.top_k) >= n_candidates_) return;
  const auto all = candidates();
  const auto end = all.begin() + config_.top_k;
  // A heap of k that most candidates fail to enter with one comparison: for the usual k much faster than
  // nth_element.
  std::partial_sort(all.begin(), end, all.end(), ByRank{});
  const double last = (end - 1)->logit;
  const auto tied = [last](const Candidate& c) { return c.logit == last; };
  const auto kept = config_.top_k_keeps_ties ? std::partition(end, all.end(), tied) : end;
  n_candidates_ = static_cast<std::size_t>(kept - all.begin());
  in_id_order_ = false;
}

void Sampler::keep_top_p() {
  if (config_.top_p >= 1) return;
  const auto all = candidates();
  const double largest = largest_logit();
  double sum = 0;
  for (const Candidate& c : all) sum += std::exp(c.logit - largest);
  // Takes candidates off a heap in descending order until the mass is reached, which is early for most
  // distributions.
  const auto ranks_later = [](const Candidate& a, const Candidate& b) { return ByRank{}(b, a); };
  std::make_heap(all.begin(), all.end(), ranks_later);
  auto kept = all.end();  // those taken stand behind the heap
  double mass = 0;
  do {
    std::pop_heap(all.begin(), kept, ranks_later);
    --kept;
    mass += std::exp(kept->logit - largest) / sum;
  } while (mass < config_.top_p && kept != all.begin());
  std::move(kept, all.end(), all.begin());
  n_candidates_ = static_cast<std::size_t>(all.end() - kept);
  in_id_order_ = false;
}

void Sampler::keep_min_p() {
  if (config_.min_p <= 0) return;
  const double threshold = largest_logit() + std::log(config_.min_p);
  const auto all = candidates();
  const auto kept =
      std::remove_if(all.begin(), all.end(), [&](const Candidate& c) { return c.logit < threshold; });
  n_candidates_ = static_cast<std::size_t>(kept - all.begin());
}

void Sampler::apply_temperature() {
  const auto all = candidates();
  if (config_.temperature <= 0) {
    all[0] = *std::min_element(all.begin(), all.end(), ByRank{});
    n_candidates_ = 1;
    return;
  }
  for (Candidate& c : all) c.logit /= config_.temperature;
}

double Sampler::largest_logit() const {
  double largest = storage_.front().logit;
  for (std::size_t i = 1; i < n_candidates_; ++i) largest = std::max(largest, storage_[i].logit);
  return largest;
}

}  // namespace terrace
