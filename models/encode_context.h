// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>

#include "engine/error.h"
#include "engine/exec.h"

namespace terrace {

/// What layers run on when they see a whole sequence at once (an encoder, or a causal model in its evaluation
/// form). Work is cut into blocks of rows, so that memory beyond the residual streams and one layer's keys
/// and values stays bounded.
struct EncodeContext {
  static constexpr std::size_t kRowsPerBlock = 256;

  Exec& exec;
  std::size_t n_real;                            ///< rows from here on are padding
  const std::function<void(std::size_t)>& tick;  ///< told the rows of work just done; throws Error to cancel

  /// Calls fn(begin, count) for consecutive blocks of at most kRowsPerBlock of `n` rows.
  template <class F>
  void for_blocks(std::size_t n, F&& fn) const {
    for (std::size_t begin = 0; begin < n; begin += kRowsPerBlock) {
      const std::size_t count = n - begin < kRowsPerBlock ? n - begin : kRowsPerBlock;
      const Workspace::Scope scope(exec.ws);
      fn(begin, count);
      if (tick) tick(count);
    }
  }
};

}  // namespace terrace
