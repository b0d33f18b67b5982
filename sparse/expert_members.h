// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/memory.h"

namespace terrace {

/// Which experts the tokens of a pass use; [..] are shapes.
struct ExpertChoice {
  std::size_t n_active;
  std::uint32_t* experts;  ///< [T, n_active], ascending
  float* gains;            ///< [T, n_active], or null for 1
};

/// The inverse: the tokens of each expert in use, expert by expert. An entry of `tokens` is a pair of an
/// expert and a token that uses it.
struct ExpertMembers {
  std::size_t n_used = 0;           ///< experts
  std::uint32_t* used = nullptr;    ///< [n_used], ascending
  std::size_t* first = nullptr;     ///< [n_used + 1]: the tokens of used[i] are first[i] .. first[i + 1] - 1
  std::uint32_t* tokens = nullptr;  ///< [T * n_active]
  std::uint32_t* ranks = nullptr;   ///< the same: which of the token's experts it is
  float* gains = nullptr;           ///< of each entry, or null

  std::size_t size() const noexcept { return first[n_used]; }
  std::size_t count(std::size_t i) const noexcept { return first[i + 1] - first[i]; }

  /// Memory is taken from the workspace.
  ExpertMembers(Workspace& ws, const ExpertChoice& choice, std::size_t n_tokens, std::size_t n_experts) {
    const std::size_t n = n_tokens * choice.n_active;
    auto* const place = ws.take<std::size_t>(n_experts + 1);
    std::fill_n(place, n_experts + 1, 0);
    for (std::size_t k = 0; k < n; ++k) ++place[choice.experts[k] + 1];
    used = ws.take<std::uint32_t>(n_experts);
    first = ws.take<std::size_t>(n_experts + 1);
    for (std::size_t e = 0; e < n_experts; ++e) {
      if (place[e + 1] > 0) {
        used[n_used] = static_cast<std::uint32_t>(e);
        first[n_used++] = place[e];
      }
      place[e + 1] += place[e];
    }
    first[n_used] = n;
    tokens = ws.take<std::uint32_t>(n);
    ranks = ws.take<std::uint32_t>(n);
    if (choice.gains) gains = ws.take<float>(n);
    for (std::size_t k = 0; k < n; ++k) {
      const std::size_t entry = place[choice.experts[k]]++;
      tokens[entry] = static_cast<std::uint32_t>(k / choice.n_active);
      ranks[entry] = static_cast<std::uint32_t>(k % choice.n_active);
      if (gains) gains[entry] = choice.gains[k];
    }
  }
};

}  // namespace terrace
