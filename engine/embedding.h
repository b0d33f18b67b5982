// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/error.h"
#include "engine/linear.h"

namespace terrace {

/// Table of token vectors: y[t] = table[id[t]]. No scaling by sqrt(d). Cost: one row per token.
class Embedding {
 public:
  Embedding() = default;
  Embedding(const DenseKernels& kernels, const WeightView& table) : kernels_(&kernels), table_(table) {}

  std::size_t vocab_size() const noexcept { return table_.rows; }
  std::size_t width() const noexcept { return table_.cols; }
  std::size_t bytes_per_token() const noexcept { return table_.slice_rows(0, 1).bytes(); }
  explicit operator bool() const noexcept { return static_cast<bool>(table_); }

  /// Every id must lie in [0, vocab_size()): the session checks ids before it changes any state.
  void forward(std::span<const std::int32_t> ids, Rows y) const noexcept {
    for (std::size_t t = 0; t < ids.size(); ++t) {
      const auto id = static_cast<std::size_t>(ids[t]);
      TERRACE_DCHECK(id < table_.rows);
      widen_row(*kernels_, table_, id, y.row(t));
    }
  }

 private:
  const DenseKernels* kernels_ = nullptr;
  WeightView table_;
};

}  // namespace terrace
