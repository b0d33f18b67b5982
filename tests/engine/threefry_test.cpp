// SPDX-License-Identifier: Apache-2.0
#include "engine/threefry.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "tests/support/golden_file.h"

namespace terrace::test {
namespace {

using nlohmann::json;

TEST_CASE("threefry: keys are split as by the oracle") {
  const json golden = json::parse(read_golden_file("attention.json"));
  for (const json& item : golden.at("random")) {
    const ThreefryKey key = threefry_key(item.at("seed").get<std::uint64_t>());
    for (const auto& [name, n] : {std::pair<const char*, std::size_t>{"split", 2}, {"split5", 5}}) {
      const auto words = item.at(name).get<std::vector<std::uint32_t>>();
      for (std::size_t i = 0; i < n; ++i) {
        const ThreefryKey part = threefry_split(key, n, i);
        CHECK(part[0] == words[2 * i]);
        CHECK(part[1] == words[2 * i + 1]);
      }
    }
  }
}

TEST_CASE("threefry: a block is the published test vector of Threefry-2x32 with 20 rounds (Random123)") {
  const auto words = threefry_block({0x13198A2E, 0x03707344}, 0x243F6A88, 0x85A308D3);
  CHECK(words[0] == 0xC4923A9C);
  CHECK(words[1] == 0x483DF7A0);
}

}  // namespace
}  // namespace terrace::test
