// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/benchmark/row.h"
#include "tools/benchmark/variants.h"

namespace terrace::tools {

/// What `terrace bench` is to do.
struct BenchOptions {
  std::string model;  ///< a file, or
  std::string preset;
  std::string variant = "both";   ///< "both", "sparse", "dense"
  std::string attention = "lsh";  ///< "lsh", "exact", "both": choose_attention()
  std::optional<Table1Rule> table1;
  std::optional<Sweep> sweep;
  std::uint32_t blocks = 0;  ///< 0 = all
  std::vector<std::string> dtypes = {"bf16"};
  std::vector<unsigned> threads;  ///< empty = one per physical core
  std::size_t n_decode = 64;
  std::size_t n_prompt = 128;
  std::vector<std::size_t> depths = {0};
  std::size_t repetitions = 5;
  std::string kv_type = "auto";  ///< as on the command line (model_arguments.h)
  bool profile = false;
  std::string folder;  ///< for the weights of presets and twins
};

/// Makes or loads the models, runs every test with every dtype and number of threads, and appends a row per
/// model to `rows`, which keeps what was measured before an error. Throws UsageError, Error.
void run_bench(const BenchOptions& options, std::vector<BenchRow>& rows);

}  // namespace terrace::tools
