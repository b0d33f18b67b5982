// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/memory.h"
#include "engine/serial.h"

namespace terrace {

/// Which positions have a slot in the caches of a block that skips tokens (Mixture-of-Depths): the position
/// of every slot, ascending. Caches number their slots 0, 1, 2, ...; this says where to cut them when the
/// sequence is cut. Memory for `max_length` slots is reserved at construction.
class SlotPositions {
 public:
  SlotPositions() = default;
  /// Throws Error{kOutOfMemory}.
  explicit SlotPositions(std::size_t max_length);

  std::size_t n_slots() const noexcept { return n_slots_; }
  /// Appends slots at positions beyond all earlier ones.
  void append(std::span<const std::uint32_t> positions) noexcept;
  /// Slots of positions below `length`.
  std::size_t slots_before(std::size_t length) const noexcept;
  /// Forgets the slots of positions from `length` on.
  void truncate(std::size_t length) noexcept { n_slots_ = slots_before(length); }
  /// Throws Error{kOutOfMemory}.
  SlotPositions fork() const;

  void save(ByteSink& sink) const;
  /// Throws Error{kBadFile} unless the positions ascend and lie below `length`.
  void load(ByteSource& source, std::size_t length);

 private:
  std::span<std::uint32_t> all() const noexcept { return buffer_.as<std::uint32_t>(); }

  VirtualBuffer buffer_;
  std::size_t n_slots_ = 0;
};

}  // namespace terrace
