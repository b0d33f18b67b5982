// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/isa.h"
#include "models/session.h"
#include "tests/support/temporary_directory.h"

// Small models with every stateful layer, and what tests of sessions do with them.

namespace terrace::test {

using Logits = std::vector<std::vector<float>>;

constexpr std::size_t kLength = 150;  ///< tokens that cross a page of the cache and a snapshot

struct Sample {
  const char* name;
  const char* config;
  bool exact_on_scalar = false;  ///< no activation whose scalar version is the C library's
};

/// Every stateful layer at least once, with odd sizes.
extern const std::vector<Sample> kSamples;
/// The one of that name.
const Sample& sample_named(std::string_view name);

/// The same layers with rows that are multiples of kQ4Columns long: q4 is q8 elsewhere.
ModelConfig widened(ModelConfig config);

class Models {
 public:
  /// A model with random weights; q4: with rows of whole q4 columns.
  std::shared_ptr<const Model> make(const Sample& sample, DType dtype = DType::kF32,
                                    Isa isa = isa_from_environment());
  std::string file(const std::string& name) { return directory_.file(name); }
  /// What is in that file.
  std::string bytes(const std::string& name);

 private:
  TemporaryDirectory directory_;
  int n_ = 0;
};

/// Calls fn(models, sample) for every sample.
template <class F>
void for_samples(F&& fn) {
  Models models;
  for (const Sample& sample : kSamples) {
    CAPTURE(sample.name);
    fn(models, sample);
  }
}

std::vector<TokenId> some_tokens(const Model& model, std::size_t n, std::size_t seed = 3);

/// A session that has read a document, if the model takes one.
Session start(const std::shared_ptr<const Model>& model, Runtime& runtime, KvType type = KvType::kF32);

/// Appends the logits of every token to `rows`.
void decode_all(Session& session, std::span<const TokenId> ids, Logits& rows);

Logits step_by_step(const std::shared_ptr<const Model>& model, std::span<const TokenId> ids,
                    unsigned n_threads = 1, KvType type = KvType::kF32);

bool same_bits(std::span<const float> a, std::span<const float> b);
float largest_difference(const Logits& a, const Logits& b);

}  // namespace terrace::test
