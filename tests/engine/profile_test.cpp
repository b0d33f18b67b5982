// SPDX-License-Identifier: Apache-2.0
#include "engine/profile.h"

#include <doctest/doctest.h>

#include <chrono>
#include <string>

namespace terrace {
namespace {

double sum(const Profile& profile) {
  double seconds = 0;
  for (std::size_t z = 0; z < kZones; ++z) seconds += profile.seconds(static_cast<Zone>(z));
  return seconds;
}

using Clock = std::chrono::steady_clock;

double between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

void spend(std::chrono::microseconds time) {
  const auto end = Clock::now() + time;
  while (Clock::now() < end) {
  }
}

// Every bound is taken from clock readings on both sides of the profile's own, so that it holds however long
// the thread is kept from running.
TEST_CASE("Profile: time counts for the innermost zone, and the zones add up to the whole") {
  constexpr double kRounding = 1e-10;
  Profile profile;
  const auto before = Clock::now();
  profile.clear();
  const auto start = Clock::now();
  Clock::time_point before_inner, start_inner, end_inner, after_inner;
  {
    const ProfileZone outer(&profile, Zone::kFeedForward);
    spend(std::chrono::microseconds(200));
    before_inner = Clock::now();
    {
      const ProfileZone inner(&profile, Zone::kSru);
      start_inner = Clock::now();
      spend(std::chrono::microseconds(100));
      end_inner = Clock::now();
    }
    after_inner = Clock::now();
    spend(std::chrono::microseconds(200));
  }
  const auto end = Clock::now();
  profile.enter(Zone::kOther);
  const auto after = Clock::now();
  CHECK(profile.seconds(Zone::kSru) >= between(start_inner, end_inner) - kRounding);
  CHECK(profile.seconds(Zone::kSru) <= between(before_inner, after_inner) + kRounding);
  CHECK(profile.seconds(Zone::kFeedForward) >= 400e-6 - kRounding);
  CHECK(profile.seconds(Zone::kFeedForward) <=
        between(before, after) - between(start_inner, end_inner) + kRounding);
  CHECK(profile.seconds(Zone::kLogits) == 0);
  CHECK(sum(profile) >= between(start, end) - kRounding);
  CHECK(sum(profile) <= between(before, after) + kRounding);
}

TEST_CASE("ProfileZone: does nothing without a profile") { const ProfileZone zone(nullptr, Zone::kNorm); }

TEST_CASE("zone_name: every zone has a name of its own") {
  for (std::size_t a = 0; a < kZones; ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      CHECK(std::string(zone_name(static_cast<Zone>(a))) != zone_name(static_cast<Zone>(b)));
    }
  }
}

}  // namespace
}  // namespace terrace
