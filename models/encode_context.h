// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>

#include "attention/row_positions.h"
#include "engine/exec.h"
#include "engine/progress.h"

namespace terrace {

/// What layers run on when they see a whole sequence at once (in an encoder, or in a causal model's
/// evaluation form). Work is cut into blocks of rows, so that memory beyond the residual streams and one
/// layer's keys and values stays bounded.
struct EncodeContext {
  static constexpr std::size_t kRowsPerBlock = 256;

  Exec& exec;
  std::size_t n_real;   ///< rows from here on are padding
  const RowTick& tick;  ///< told of every row once per pass over the sequence (encode_passes() of the layers)
  RowPositions positions = 0;  ///< of the rows in their sequence

  /// One pass over `n` rows: calls fn(begin, count) for consecutive blocks of at most kRowsPerBlock of them.
  template <class F>
  void for_blocks(std::size_t n, F&& fn) const {
    for (std::size_t begin = 0; begin < n; begin += kRowsPerBlock) {
      const std::size_t count = std::min(kRowsPerBlock, n - begin);
      const Workspace::Scope scope(exec.ws);
      fn(begin, count);
      if (tick) tick(count);
    }
  }
};

}  // namespace terrace
