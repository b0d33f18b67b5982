// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "engine/error.h"

namespace terrace::test {

/// Runs `body`, which must throw an Error of `code` whose message contains `fragment`.
template <class Body>
void expect_error(ErrorCode code, const std::string& fragment, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CAPTURE(fragment);
    CHECK(static_cast<int>(error.code()) == static_cast<int>(code));
    CHECK(message.find(fragment) != std::string::npos);
    return;
  }
  FAIL_CHECK("no Error was thrown; expected one with: " << fragment);
}

}  // namespace terrace::test
