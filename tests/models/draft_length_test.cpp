// SPDX-License-Identifier: Apache-2.0
#include "models/draft_length.h"

#include <doctest/doctest.h>

#include <cmath>

namespace terrace {
namespace {

constexpr std::size_t kMost = 8;

/// After the three tokens that come first, of a second each.
DraftLength started(std::size_t most = kMost) {
  DraftLength length(most);
  for (int i = 0; i < 3; ++i) length.record_plain(1);
  return length;
}

/// Tokens until the next draft, each recorded as one of a second without draft.
std::size_t plain_tokens(DraftLength& length) {
  std::size_t n = 0;
  for (; length.next() == 0 && n < 10'000; ++n) length.record_plain(1);
  return n;
}

TEST_CASE("DraftLength: three tokens come alone, then a short draft is tried") {
  DraftLength length(kMost);
  CHECK(plain_tokens(length) == 3);
  CHECK(length.next() == 2);
  CHECK(started(1).next() == 1);
}

TEST_CASE("DraftLength: guesses that cost nothing are as many as may be") {
  DraftLength length = started();
  length.record(2, 2, 0, 1);
  CHECK(length.next() == kMost);
}

TEST_CASE("DraftLength: the number with the most tokens per second") {
  DraftLength length = started();
  length.record(2, 1, 2 * 0.1, 1.04);
  const double a = 0.5 + 0.1 * (1 - 0.5) - 0.1 * 0.55;  // one guess right, then one wrong
  std::size_t best = 0;
  double most = 1;  // token per second, without draft
  for (std::size_t n = 1; n <= kMost; ++n) {
    const auto guesses = static_cast<double>(n);
    // A pass of 1 token takes 1 s and of 3 tokens 1.04 s; the others lie on that line.
    const double seconds = guesses * 0.1 + 1 + 0.02 * guesses;
    const double per_second = (1 - std::pow(a, guesses + 1)) / (1 - a) / seconds;
    if (per_second > most) most = per_second, best = n;
  }
  REQUIRE(best > 1);
  REQUIRE(best < kMost);
  CHECK(length.next() == best);
}

TEST_CASE("DraftLength: guesses behind the first wrong one count neither way") {
  DraftLength length = started();
  length.record(8, 0, 8 * 0.05, 1.8);
  CHECK(length.next() == 2);  // as for a share of 0.45; eight wrong guesses would leave 0.22, and one guess
}

TEST_CASE("DraftLength: a draft that does not pay is tried again later and later, until one has paid") {
  DraftLength length = started();
  for (const std::size_t wait : {16, 32, 64, 128, 256, 256}) {
    length.record(2, 0, 10, 10);
    CHECK(plain_tokens(length) == wait);
    CHECK(length.next() == 2);
  }
  length.record(2, 2, 0, 1);
  CHECK(length.next() == kMost);
  length.record(8, 0, 1e6, 1e6);
  CHECK(plain_tokens(length) == 32);
}

TEST_CASE("DraftLength: after 2, 4, ... 32 rounds a token alone is timed again") {
  DraftLength length = started();
  for (const std::size_t rounds : {2, 4, 8, 16, 32, 32}) {
    for (std::size_t i = 0; i < rounds; ++i) {
      CHECK(length.next() > 0);
      length.record(2, 2, 0, 1);
    }
    CHECK(length.next() == 0);
    length.record_plain(1);
  }
}

}  // namespace
}  // namespace terrace
