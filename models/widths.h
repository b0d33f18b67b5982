// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "models/config.h"

namespace terrace {

/// The width of a block: there is one for all blocks or one for each.
constexpr std::uint32_t width_of(std::span<const std::uint32_t> widths, std::size_t block) noexcept {
  return widths[widths.size() == 1 ? 0 : block];
}

/// The smallest step between the widths of a feed-forward layer: a controller block, 64 units of a dense
/// layer, or an expert where their number is free; d_ff where no other width is possible.
std::uint32_t width_step(const FeedForwardConfig& f, std::uint32_t d_ff) noexcept;

/// Whether every possible width counts as trained.
constexpr bool any_width(const FeedForwardConfig& f) noexcept {
  return f.kind == FeedForwardConfig::Kind::kExperts;
}

/// Whether a layer can run with this width: d_ff, or a smaller multiple of width_step().
bool takes_width(const FeedForwardConfig& f, std::uint32_t d_ff, std::size_t width) noexcept;

/// Throws Error{kBadArgument} unless there is one width or one per block.
void check_n_widths(std::size_t n_widths, std::size_t n_blocks);
/// Throws Error{kBadArgument} that names the block and its possible widths unless the block can run with this
/// one; without `allow_untrained` it must be trained too. Allocates nothing unless it throws.
void check_width(const FeedForwardConfig& f, std::uint32_t d_ff, std::size_t block, std::uint32_t width,
                 bool allow_untrained);
/// Both, for all blocks of a decoder.
void check_widths(const ModelConfig& config, std::span<const std::uint32_t> widths,
                  bool allow_untrained = false);

/// Single widths to choose from, ascending: those that were trained (one if the model is not nested), or
/// powers of two of experts, the default, and all.
std::vector<std::uint32_t> nested_widths(const ModelConfig& config);

}  // namespace terrace
