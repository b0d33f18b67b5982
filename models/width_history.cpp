// SPDX-License-Identifier: Apache-2.0
#include "models/width_history.h"

namespace terrace {

void WidthHistory::save(ByteSink& sink) const {
  write_u64(sink, begins_.size());
  write_array(sink, begins_.data(), begins_.size());
  write_array(sink, widths_.data(), widths_.size());
}

void WidthHistory::load(ByteSource& source, std::size_t n_tokens) {
  const std::size_t n_runs = read_u64(source, n_tokens, "the number of changes of width");
  begins_.resize(n_runs);
  widths_.resize(n_runs * n_blocks_);
  read_array(source, begins_.data(), begins_.size());
  read_array(source, widths_.data(), widths_.size());
  const bool ascending =
      std::adjacent_find(begins_.begin(), begins_.end(), std::greater_equal<>()) == begins_.end();
  const bool covers = n_tokens == 0 || (n_runs > 0 && begins_.front() == 0 && begins_.back() < n_tokens);
  TERRACE_CHECK(ascending && covers, kBadFile,
                "state: the changes of width do not ascend from 0 or lie beyond the context");
  make_room();
}

}  // namespace terrace
