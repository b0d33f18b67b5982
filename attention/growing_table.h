// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>

#include "engine/memory.h"

namespace terrace {

/// A table of rows that are computed in order when they are first asked for: a model may have many more
/// positions than a context uses. Address space is reserved for all rows. Copies share the rows, and several
/// threads may ask at the same time.
class GrowingTable {
 public:
  GrowingTable() = default;
  /// Throws Error{kOutOfMemory}; `what` names the purpose in the message.
  GrowingTable(std::size_t max_rows, std::size_t width, const std::string& what)
      : rows_(std::make_shared<Rows>(max_rows, width, what)) {}

  /// The rows, of which the first `n` <= max_rows are there afterwards. fill(table, begin, end) computes rows
  /// [begin, end) from those before; it must not throw.
  template <class Fill>
  const float* first(std::size_t n, Fill&& fill) const {
    Rows& rows = *rows_;
    if (rows.n_filled.load(std::memory_order_acquire) < n) {
      const std::scoped_lock lock(rows.filling);
      const std::size_t begin = rows.n_filled.load(std::memory_order_relaxed);
      const std::size_t end = std::min(rows.max_rows, (n + kRowsAtOnce - 1) / kRowsAtOnce * kRowsAtOnce);
      if (begin < end) {
        fill(rows.table(), begin, end);
        rows.n_filled.store(end, std::memory_order_release);
      }
    }
    return rows.table();
  }

 private:
  static constexpr std::size_t kRowsAtOnce = 64;

  struct Rows {
    Rows(std::size_t n, std::size_t width, const std::string& what)
        : max_rows(n), memory(n * width * sizeof(float), what) {}
    float* table() const noexcept { return memory.as<float>().data(); }

    std::size_t max_rows;
    VirtualBuffer memory;
    std::mutex filling;
    std::atomic<std::size_t> n_filled{0};
  };

  std::shared_ptr<Rows> rows_;
};

}  // namespace terrace
