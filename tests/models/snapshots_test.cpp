// SPDX-License-Identifier: Apache-2.0
#include "models/snapshots.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <span>
#include <vector>

#include "tests/support/expect_error.h"

namespace terrace::test {
namespace {

constexpr std::size_t kFloats = 48;

std::vector<float> state(float value) { return std::vector<float>(kFloats, value); }
bool holds(const Snapshots& snapshots, std::size_t i, float value) {
  const std::span<const float> found = snapshots.at(i);
  return std::equal(found.begin(), found.end(), state(value).begin());
}

TEST_CASE("snapshots: forks share what both have, and neither sees what the other takes later") {
  Snapshots parent(kFloats, 8);
  CHECK(holds(parent, 0, 0.0F));
  for (std::size_t i = 0; i < 4; ++i) parent.put(i, state(static_cast<float>(i)));
  Snapshots child = parent.fork(4);
  for (std::size_t i = 0; i < 4; ++i) CHECK(child.at(i).data() == parent.at(i).data());
  parent.put(4, state(14));
  child.put(4, state(24));
  parent.cut(2);  // goes back below the fork and on
  parent.put(2, state(12));
  Snapshots grandchild = child.fork(5);
  child.cut(1);
  child.put(1, state(21));
  CHECK(holds(parent, 1, 1));
  CHECK(holds(parent, 2, 12));
  CHECK(holds(child, 0, 0));
  CHECK(holds(child, 1, 21));
  for (std::size_t i = 0; i < 4; ++i) CHECK(holds(grandchild, i, static_cast<float>(i)));
  CHECK(holds(grandchild, 4, 24));
}

TEST_CASE("snapshots: saved and loaded, also into a store that a fork reads") {
  Snapshots from(kFloats, 8);
  for (std::size_t i = 0; i < 3; ++i) from.put(i, state(static_cast<float>(i + 1)));
  MemorySink sink;
  from.save(sink, 3);
  CHECK(sink.bytes().size() == 3 * kFloats * sizeof(float));
  Snapshots to(kFloats, 8);
  for (std::size_t i = 0; i < 8; ++i) to.put(i, state(-1));
  const Snapshots reader = to.fork(8);
  MemorySource source(sink.bytes());
  to.load(source, 3);
  CHECK(source.left() == 0);
  for (std::size_t i = 0; i < 3; ++i) CHECK(holds(to, i, static_cast<float>(i + 1)));
  CHECK(holds(reader, 2, -1));
  MemorySource cut(std::span(sink.bytes()).first(kFloats));
  expect_error(ErrorCode::kBadFile, "ends too early", [&] { to.load(cut, 3); });
}

TEST_CASE("snapshots: a model without recurrent state has none") {
  Snapshots none(0, 8);
  none.cut(0);
  MemorySink sink;
  none.fork(3).save(sink, 3);
  CHECK(sink.bytes().empty());
}

}  // namespace
}  // namespace terrace::test
