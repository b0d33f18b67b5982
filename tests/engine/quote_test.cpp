// SPDX-License-Identifier: Apache-2.0
#include "engine/quote.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>

namespace terrace {
namespace {

using namespace std::string_view_literals;

TEST_CASE("quote_text: printable ASCII stays as it is") {
  CHECK(quote_text("") == "''");
  CHECK(quote_text(" decoder.blocks.0 ~") == "' decoder.blocks.0 ~'");
}

TEST_CASE("quote_text: every other byte becomes two hexadecimal digits") {
  CHECK(quote_text("a\n\x1b[0m"sv) == R"('a\x0a\x1b[0m')");
  CHECK(quote_text("\0\x1f\x20\x7e\x7f\x80\xff"sv) == R"('\x00\x1f ~\x7f\x80\xff')");
}

TEST_CASE("quote_text: 80 bytes are whole, of more the first 80 are shown and marked") {
  const std::string longest(80, 'x');
  CHECK(quote_text(longest) == fmt::format("'{}'", longest));
  CHECK(quote_text(longest + "y") == fmt::format("'{}...'", longest));
  CHECK(quote_text(std::string(1'000'000, '\n')).size() == 2 + 80 * 4 + 3);
}

}  // namespace
}  // namespace terrace
