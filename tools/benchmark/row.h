// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace terrace::tools {

/// One measurement of `terrace bench`: a model variant, a number of threads, a test. Figures without a value
/// do not apply: a prefill shares each weight between the tokens of a pass, so it has no bytes per token.
struct BenchRow {
  std::string model;    ///< preset or file
  std::string variant;  ///< "sparse" or "dense"
  std::string dtype;
  unsigned threads = 0;
  std::string test;          ///< "tg" (decode) or "pp" (prefill)
  std::size_t depth = 0;     ///< tokens in the context before the first timed one
  std::size_t n_tokens = 0;  ///< timed tokens of one repetition
  double tokens_per_s = 0;   ///< median over the repetitions
  double tokens_per_s_min = 0;
  double tokens_per_s_max = 0;
  std::optional<double> bytes_per_token;
  double read_bw_gb_per_s = 0;  ///< measured beside the repetitions
  std::optional<double> speedup_vs_dense;

  double ms_per_token() const noexcept { return 1e3 / tokens_per_s; }
  std::optional<double> gb_per_s() const noexcept;
  /// gb_per_s / read_bw_gb_per_s.
  std::optional<double> bw_share() const noexcept;
};

/// A table for people.
std::string bench_markdown(const std::vector<BenchRow>& rows);
/// The same columns as JSON, comma-separated; figures that do not apply are empty.
std::string bench_csv(const std::vector<BenchRow>& rows);
/// A list of objects; figures that do not apply are null.
std::string bench_json(const std::vector<BenchRow>& rows);

}  // namespace terrace::tools
