// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

/// The counter-based random generator of JAX (Threefry-2x32, 20 rounds) in its legacy, non-partitionable
/// layout, with which Trax's checkpoints were made. Used by the sampler and for the phases of the `infinite`
/// positional encoding. Source: Salmon et al. 2011; jax/_src/prng.py.
namespace terrace {

using ThreefryKey = std::array<std::uint32_t, 2>;

/// One block: the two output words for the counter words (x0, x1).
std::array<std::uint32_t, 2> threefry_block(const ThreefryKey& key, std::uint32_t x0,
                                            std::uint32_t x1) noexcept;

/// Key of an integer seed: (upper, lower) 32 bits.
ThreefryKey threefry_key(std::uint64_t seed) noexcept;

/// Key `index` of `n` keys split from `key` (index < n).
ThreefryKey threefry_split(const ThreefryKey& key, std::size_t n, std::size_t index) noexcept;

}  // namespace terrace
