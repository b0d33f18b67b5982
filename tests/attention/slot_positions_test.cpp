// SPDX-License-Identifier: Apache-2.0
#include "attention/slot_positions.h"

#include <doctest/doctest.h>

#include <vector>

#include "tests/support/expect_error.h"

namespace terrace {
namespace {

SlotPositions filled(const std::vector<std::uint32_t>& positions, std::size_t max_length = 100) {
  SlotPositions slots(max_length);
  slots.append(positions);
  return slots;
}

TEST_CASE("Slots are counted and cut by the positions they stand for") {
  SlotPositions slots = filled({2, 3, 7, 50});
  slots.append(std::vector<std::uint32_t>{});
  CHECK(slots.n_slots() == 4);
  CHECK(slots.slots_before(0) == 0);
  CHECK(slots.slots_before(3) == 1);
  CHECK(slots.slots_before(4) == 2);
  CHECK(slots.slots_before(1000) == 4);
  const SlotPositions fork = slots.fork();
  slots.truncate(7);
  CHECK(slots.n_slots() == 2);
  CHECK(fork.n_slots() == 4);
  slots.append(std::vector<std::uint32_t>{9});
  CHECK(slots.slots_before(9) == 2);
  CHECK(slots.slots_before(10) == 3);
}

TEST_CASE("Slot positions are saved and restored; what cannot be is refused") {
  MemorySink sink;
  filled({2, 3, 7, 50}).save(sink);
  SlotPositions restored(60);
  MemorySource source(sink.bytes());
  restored.load(source, 51);
  CHECK(source.left() == 0);
  CHECK(restored.slots_before(8) == 3);

  const auto refuses = [](const std::vector<std::uint32_t>& positions, std::size_t max_length,
                          std::size_t length, const char* message) {
    MemorySink saved;
    filled(positions).save(saved);
    SlotPositions target(max_length);
    MemorySource from(saved.bytes());
    test::expect_error(ErrorCode::kBadFile, message, [&] { target.load(from, length); });
    CHECK(target.n_slots() == 0);
  };
  refuses({2, 3, 7, 50}, 60, 50, "lie beyond the context");
  refuses({2, 3, 3, 50}, 60, 51, "do not ascend");
  refuses({2, 3, 7, 50}, 3, 51, "number of a routed block's slots is 4, expected at most 3");
}

}  // namespace
}  // namespace terrace
