// SPDX-License-Identifier: Apache-2.0
#include "attention/slot_positions.h"

#include <algorithm>

namespace terrace {

SlotPositions::SlotPositions(std::size_t max_length)
    : buffer_(max_length * sizeof(std::uint32_t), "the positions of a routed block's slots") {}

void SlotPositions::append(std::span<const std::uint32_t> positions) noexcept {
  TERRACE_DCHECK(n_slots_ + positions.size() <= all().size());
  std::copy(positions.begin(), positions.end(), all().begin() + static_cast<std::ptrdiff_t>(n_slots_));
  n_slots_ += positions.size();
}

std::size_t SlotPositions::slots_before(std::size_t length) const noexcept {
  const std::span<const std::uint32_t> used = all().first(n_slots_);
  return static_cast<std::size_t>(std::lower_bound(used.begin(), used.end(), length) - used.begin());
}

SlotPositions SlotPositions::fork() const {
  SlotPositions copy(all().size());
  copy.append(all().first(n_slots_));
  return copy;
}

void SlotPositions::save(ByteSink& sink) const {
  write_u64(sink, n_slots_);
  write_array(sink, all().data(), n_slots_);
}

void SlotPositions::load(ByteSource& source, std::size_t length) {
  n_slots_ = 0;
  const std::size_t n =
      read_u64(source, std::min(length, all().size()), "the number of a routed block's slots");
  const std::span<std::uint32_t> read = all().first(n);
  read_array(source, read.data(), n);
  const bool ascending = std::adjacent_find(read.begin(), read.end(), std::greater_equal<>()) == read.end();
  TERRACE_CHECK(ascending && (read.empty() || read.back() < length), kBadFile,
                "state: the positions of a routed block's slots do not ascend or lie beyond the context");
  n_slots_ = n;
}

}  // namespace terrace
