// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace terrace {

/// What a token's time is spent on.
enum class Zone : std::uint8_t {
  kEmbedding,
  kNorm,
  kProjections,  ///< to q, k, v and back, convolutions included
  kAttention,    ///< over the cached keys and values
  kFeedForward,  ///< controller and units
  kSru,
  kLogits,
  kOther,  ///< residual additions, state keeping, the caller
};
inline constexpr std::size_t kZones = static_cast<std::size_t>(Zone::kOther) + 1;

constexpr const char* zone_name(Zone zone) noexcept {
  constexpr std::array<const char*, kZones> kNames{"embedding",    "norms", "projections", "attention",
                                                   "feed-forward", "sru",   "logits",      "other"};
  return kNames[static_cast<std::size_t>(zone)];
}

/// Wall-clock time of the leader by zone. Zones nest, and time counts for the innermost one, so the parts add
/// up to the whole. Cost: two clock readings per zone (about 50 ns) while a session has a profile, one test
/// of a pointer otherwise.
class Profile {
 public:
  /// Starts anew, in Zone::kOther.
  void clear() noexcept { *this = Profile(); }

  /// Time goes to `zone` from now on; returns the zone it went to before.
  Zone enter(Zone zone) noexcept {
    const auto now = Clock::now();
    spent_[static_cast<std::size_t>(zone_)] += now - since_;
    since_ = now;
    return std::exchange(zone_, zone);
  }

  /// Up to the last enter().
  double seconds(Zone zone) const noexcept {
    return std::chrono::duration<double>(spent_[static_cast<std::size_t>(zone)]).count();
  }

 private:
  using Clock = std::chrono::steady_clock;

  std::array<Clock::duration, kZones> spent_{};
  Zone zone_ = Zone::kOther;
  Clock::time_point since_ = Clock::now();
};

/// While alive, time counts for one zone. `profile` may be null.
class ProfileZone {
 public:
  ProfileZone(Profile* profile, Zone zone) noexcept
      : profile_(profile), before_(profile ? profile->enter(zone) : Zone::kOther) {}
  ~ProfileZone() {
    if (profile_) profile_->enter(before_);
  }
  ProfileZone(const ProfileZone&) = delete;
  ProfileZone& operator=(const ProfileZone&) = delete;

 private:
  Profile* profile_;
  Zone before_;
};

}  // namespace terrace
