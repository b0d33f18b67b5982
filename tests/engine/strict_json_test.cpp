// SPDX-License-Identifier: Apache-2.0
#include "engine/strict_json.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/expect_error.h"

namespace terrace {
namespace {

void refused(const std::string& text, const std::string& message) {
  CAPTURE(text.substr(0, 60));
  test::expect_error(ErrorCode::kBadFile, message, [&] { parse_strict_json(text, "it"); });
}

TEST_CASE("Valid JSON parses, up to the deepest nesting allowed") {
  CHECK(parse_strict_json(R"({"a":[1,-2,3.5,"\u00e9",null,true],"b":{"a":{}}})", "it")["a"].size() == 6);
  const std::string open(kJsonMaxDepth, '[');
  const std::string close(kJsonMaxDepth, ']');
  CHECK(parse_strict_json(open + close, "it").is_array());
  refused("[" + open + close + "]", "it: JSON is nested deeper than 32 levels");
  refused(std::string(10'000'000, '['), "nested deeper");
}

TEST_CASE("A key twice in one object is refused at any depth, the same key in two objects is not") {
  CHECK(parse_strict_json(R"([{"a":1},{"a":{"a":2}}])", "it").size() == 2);
  refused(R"({"a":1,"a":1})", "it: key 'a' appears twice in one JSON object");
  refused(R"({"b":[{"x":{"a":1,"c":2,"a":3}}]})", "key 'a' appears twice");
  refused(R"({"a":1,"\u0061":2})", "key 'a' appears twice");
  refused(R"({"a":{"b":1},"c":2,"a":3})", "key 'a' appears twice");
}

TEST_CASE("Anything that is not one JSON value is refused with the place") {
  refused("", "it: not valid JSON at byte 1");
  refused("{} {}", "not valid JSON at byte 4");
  refused("{'a':1}", "not valid JSON at byte 2");
  refused("[1,]", "not valid JSON at byte 4");
  refused("\"\xff\"", "not valid JSON at byte 2");
  refused(std::string("1\0", 2), "not valid JSON at byte 2");
  refused("NaN", "not valid JSON at byte 1");
  refused("1e999", "not valid JSON (a number is out of range)");
  refused("\"" + std::string(1'000'000, 'x'), "not valid JSON at byte");
}

}  // namespace
}  // namespace terrace
