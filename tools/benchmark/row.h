// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/benchmark/token_profile.h"

namespace terrace::tools {

/// One measurement of `terrace bench`: a model variant, a number of threads, a test. Figures without a value
/// do not apply: a prefill shares each weight between the tokens of a pass, so it has no bytes per token.
struct BenchRow {
  std::string model;    ///< preset or file
  std::string variant;  ///< "sparse", "dense", a row of Table 1, a value of a sweep
  std::string dtype;
  unsigned threads = 0;
  std::string test;          ///< "tg" (decode) or "pp" (prefill)
  std::size_t depth = 0;     ///< tokens in the context before the first timed one
  std::size_t n_tokens = 0;  ///< timed tokens of one repetition
  double tokens_per_s = 0;   ///< median over the repetitions
  double tokens_per_s_min = 0;
  double tokens_per_s_max = 0;
  std::optional<double> bytes_per_token;
  double read_bw_gb_per_s = 0;  ///< of memory, measured beside the repetitions
  std::optional<double> speedup_vs_dense;

  // Shown only on request.
  std::uint64_t parameters = 0;
  std::uint32_t blocks = 0;         ///< of the decoder as timed
  std::uint32_t preset_blocks = 0;  ///< of the decoder as described: more than `blocks` after --blocks
  std::optional<double> predicted_ms_per_token;  ///< models/cost_model.h
  std::optional<TokenProfile> profile;

  double ms_per_token() const noexcept { return 1e3 / tokens_per_s; }
  std::optional<double> gb_per_s() const noexcept;
  /// gb_per_s / read_bw_gb_per_s.
  std::optional<double> bw_share() const noexcept;
  /// The measured time without the profiled shares of embedding and output layer, divided by the blocks.
  std::optional<double> ms_per_block() const noexcept;
  /// ms_per_token plus ms_per_block for every block that was cut off.
  std::optional<double> ms_per_token_all_blocks() const noexcept;
};

/// The same columns as JSON, comma-separated; figures that do not apply are empty. `details`: include the
/// figures that are shown only on request.
std::string bench_csv(const std::vector<BenchRow>& rows, bool details);
/// A list of objects; figures that do not apply are null.
std::string bench_json(const std::vector<BenchRow>& rows, bool details);

}  // namespace terrace::tools
