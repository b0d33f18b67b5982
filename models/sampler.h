// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/token.h"

namespace terrace {

/// One step of the chain that turns logits z into the distribution from which a token is drawn. A step sees
/// the candidates that the steps before it left; p = softmax over these. Ties in z are ordered by id.
enum class SamplerStep {
  kPenalties,   ///< see SamplerConfig::repeat_penalty
  kTopK,        ///< keep the k largest z
  kTopP,        ///< keep the shortest prefix of the descending order whose mass reaches top_p (at least one)
  kMinP,        ///< keep p >= min_p * max p, that is z >= max z + ln(min_p)
  kTemperature  ///< z / T; T <= 0 keeps the largest z only
};

/// What is kept, and in which order the steps run. The defaults are llama.cpp's.
struct SamplerConfig {
  double temperature = 0.8;  ///< 0 or less: greedy. Otherwise at least 1e-6
  std::int32_t top_k = 40;   ///< 0 or less: all
  double top_p = 0.95;       ///< 1: all
  double min_p = 0.05;       ///< 0: all

  /// For each token that occurs `count` times in the window
  ///   z = z > 0 ? z / repeat_penalty : z * repeat_penalty
  ///   z -= count * frequency_penalty + presence_penalty
  double repeat_penalty = 1.0;
  double frequency_penalty = 0.0;
  double presence_penalty = 0.0;
  std::int32_t repeat_last_n = 64;  ///< tokens of the context in the window; -1 = all of them

  std::uint64_t seed = 0;
  bool top_k_keeps_ties = false;  ///< as Hugging Face: every z equal to the k-th largest stays
  std::vector<SamplerStep> order = {SamplerStep::kPenalties, SamplerStep::kTopK, SamplerStep::kTopP,
                                    SamplerStep::kMinP, SamplerStep::kTemperature};
};

/// Sets the order of the steps from text: "llama.cpp" (the default), "hf" (Hugging Face: temperature directly
/// after the penalties, ties of top-k kept, the whole context penalised), or step names separated by commas,
/// out of penalties, top_k, top_p, min_p, temperature; other steps do not run. Throws Error{kBadArgument}.
void set_sampler_order(SamplerConfig& config, std::string_view text);

/// The steps that change anything, in their order: "top_k 40 > top_p 0.95 > min_p 0.05 > temperature 0.8".
std::string describe_sampler(const SamplerConfig& config);

/// A token and the probability that it is drawn.
struct TokenProbability {
  TokenId id;
  double probability;
};

/// Draws the next token.
///
/// There is no state between calls: the penalties look at the context, and the one uniform number of a draw
/// comes from a counter-based generator keyed by (seed, position = tokens in the context). So a draw depends
/// on seed, context and logits alone; a rewound, forked, restored or speculating session need not restore
/// anything here. The number is inverted through the distribution in order of ids, summed in double.
///
/// Logits that are NaN or -inf are never drawn; +inf counts as the largest finite float.
/// Holds 36 bytes per vocabulary entry and allocates nothing after construction (a copy: after its first
/// use). Not thread-safe; copies are independent.
class Sampler {
 public:
  /// Throws Error{kBadArgument} for values outside the ranges above or a step that occurs twice.
  Sampler(const SamplerConfig& config, std::uint32_t vocab_size);

  /// `logits` [vocab_size]; `context`: the tokens before the one that is drawn.
  /// Throws Error{kBadArgument} if no logit can be drawn or the size is wrong, Error{kBadToken} for an id in
  /// the window that is outside the vocabulary.
  TokenId sample(std::span<const float> logits, std::span<const TokenId> context);

  /// What sample() would draw from: probabilities > 0 in order of ids, summing to 1; valid until the next
  /// call.
  std::span<const TokenProbability> distribution(std::span<const float> logits,
                                                 std::span<const TokenId> context);

  /// Whether sample() takes the first of the largest logits, whatever the seed and the context.
  bool takes_largest() const noexcept { return n_first_ == 1; }

  const SamplerConfig& config() const noexcept { return config_; }

 private:
  struct Candidate {
    TokenId id;
    double logit;
  };
  struct ByRank;

  void run_chain(std::span<const float> logits, std::span<const TokenId> context);
  void collect(std::span<const float> logits);
  /// Only the n_first_ largest, in order of rank.
  void collect_largest(std::span<const float> logits);
  void run(SamplerStep step, std::span<const TokenId> context);
  void apply_penalties(std::span<const TokenId> window);
  void keep_top_k();
  void keep_top_p();
  void keep_min_p();
  void apply_temperature();
  double largest_logit() const;
  std::span<Candidate> candidates() { return {storage_.data(), n_candidates_}; }

  SamplerConfig config_;
  std::uint32_t vocab_size_;
  std::size_t n_first_;                   // how many of the largest logits the chain looks at; 0: all
  std::vector<Candidate> storage_;        // [vocab_size]; the first n_candidates_ are in use
  std::vector<TokenProbability> result_;  // [vocab_size]; filled from the front
  std::vector<std::uint32_t> counts_;     // by id: occurrences in the window; zero between calls
  std::size_t n_candidates_ = 0;
  bool in_id_order_ = true;
};

}  // namespace terrace
