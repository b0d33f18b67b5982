// SPDX-License-Identifier: Apache-2.0
#include "models/widths.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>

#include "engine/error.h"
#include "engine/tensor.h"

namespace terrace {
namespace {

/// In words.
std::string possible_widths(const FeedForwardConfig& f, std::uint32_t d_ff, bool allow_untrained) {
  const std::uint32_t step = width_step(f, d_ff);
  const bool free = any_width(f) || allow_untrained;
  if (!free && !f.widths.empty()) return fmt::format("{}", fmt::join(f.widths, ", "));
  if (step >= d_ff || !free) return fmt::format("{} only", d_ff);
  return fmt::format("multiples of {} up to {}{}", step, d_ff,
                     d_ff % step == 0 ? "" : fmt::format(", and {}", d_ff));
}

}  // namespace

std::uint32_t width_step(const FeedForwardConfig& f, std::uint32_t d_ff) noexcept {
  using Kind = FeedForwardConfig::Kind;
  switch (f.kind) {
    case Kind::kDense:
      return kQ4Columns;
    case Kind::kSparse:
      return f.block_size;
    case Kind::kExperts:
      return d_ff / f.n_experts;
    case Kind::kBlock:
    case Kind::kSwitch:
      break;
  }
  return d_ff;
}

bool takes_width(const FeedForwardConfig& f, std::uint32_t d_ff, std::size_t width) noexcept {
  return width == d_ff || (width > 0 && width < d_ff && width % width_step(f, d_ff) == 0);
}

void check_n_widths(std::size_t n_widths, std::size_t n_blocks) {
  TERRACE_CHECK(n_widths == 1 || n_widths == n_blocks, kBadArgument,
                fmt::format("one width or one per block ({}) is needed, found {}", n_blocks, n_widths));
}

void check_width(const FeedForwardConfig& f, std::uint32_t d_ff, std::size_t block, std::uint32_t width,
                 bool allow_untrained) {
  const bool known =
      width == d_ff || any_width(f) || std::find(f.widths.begin(), f.widths.end(), width) != f.widths.end();
  const bool possible = takes_width(f, d_ff, width);
  TERRACE_CHECK(
      possible && (known || allow_untrained), kBadArgument,
      fmt::format("block {}: a width of {} units is {}; it takes {}", block, width,
                  possible ? "untrained" : "impossible", possible_widths(f, d_ff, allow_untrained)));
}

void check_widths(const ModelConfig& config, std::span<const std::uint32_t> widths, bool allow_untrained) {
  const StackConfig& stack = config.decoder;
  check_n_widths(widths.size(), stack.n_layers);
  for (const StackStep& step : stack_steps(config, stack)) {
    if (step.kind != StackStep::Kind::kBlock) continue;
    check_width(stack.ff, step.d_ff, step.block, width_of(widths, step.block), allow_untrained);
  }
}

std::vector<std::uint32_t> nested_widths(const ModelConfig& config) {
  const FeedForwardConfig& f = config.decoder.ff;
  const std::uint32_t usual = default_width(f, config.d_ff);
  if (!any_width(f)) return f.widths.empty() ? std::vector{usual} : f.widths;
  std::vector<std::uint32_t> widths{usual, config.d_ff};
  for (std::uint32_t n = 1; n < f.n_experts; n *= 2) widths.push_back(config.d_ff / f.n_experts * n);
  std::sort(widths.begin(), widths.end());
  widths.erase(std::unique(widths.begin(), widths.end()), widths.end());
  return widths;
}

}  // namespace terrace
