// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>

namespace terrace {

/// How the frequencies of a model that was trained on short texts are lowered for long ones.
struct RotaryScaling {
  enum class Kind : std::uint8_t {
    kNone,
    kLinear,  ///< all are divided by `factor` (Chen et al. 2023, position interpolation)
    kLlama3   ///< those are that turn less than low_freq_factor times within the original context; those
              ///< that turn more than high_freq_factor times stay; between, a mean of both by the number of
              ///< turns (Llama Team 2024)
  };
  Kind kind = Kind::kNone;
  float factor = 1;
  float low_freq_factor = 1;
  float high_freq_factor = 4;
  std::uint32_t original_max_len = 8192;  ///< the context of training

  friend auto operator<=>(const RotaryScaling&, const RotaryScaling&) = default;

  /// The frequency that takes the place of `frequency`, in radians per position.
  double scaled(double frequency) const noexcept;
};

}  // namespace terrace
