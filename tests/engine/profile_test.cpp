// SPDX-License-Identifier: Apache-2.0
#include "engine/profile.h"

#include <doctest/doctest.h>

#include <string>

namespace terrace {
namespace {

double sum(const Profile& profile) {
  double seconds = 0;
  for (std::size_t z = 0; z < kZones; ++z) seconds += profile.seconds(static_cast<Zone>(z));
  return seconds;
}

void spend(std::chrono::microseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

TEST_CASE("Profile: time counts for the innermost zone, and the zones add up to the whole") {
  Profile profile;
  const auto start = std::chrono::steady_clock::now();
  profile.clear();
  {
    const ProfileZone outer(&profile, Zone::kFeedForward);
    spend(std::chrono::microseconds(2000));
    {
      const ProfileZone inner(&profile, Zone::kSru);
      spend(std::chrono::microseconds(1000));
    }
    spend(std::chrono::microseconds(2000));
  }
  profile.enter(Zone::kOther);
  const double whole = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  CHECK(profile.seconds(Zone::kFeedForward) >= 4e-3);
  CHECK(profile.seconds(Zone::kSru) >= 1e-3);
  CHECK(profile.seconds(Zone::kLogits) == 0);
  CHECK(sum(profile) <= whole);
  CHECK(sum(profile) >= 0.98 * whole);
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
