// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>

// The order in which a dot kernel visits rows and tokens. A `Map` does the arithmetic:
//   map.template run<R, T>(row, row_step, token)
//                              outputs of rows row + k * row_step, k < R, for tokens token + j, j < T
//   Map::kRows, Map::kTokens   the largest block when there are several tokens
//   Map::kStreams              rows of a one-token block
//   map.row_bytes()            bytes of a weight row
// Every output is computed by itself in a fixed order, so the visiting order is free to follow the caches.

namespace terrace {
namespace {

/// Weights that stay in the L2 cache while all tokens pass over them: half of the smallest L2 we aim at.
constexpr std::size_t kPanelBytes = 128 * 1024;

/// run<R, T> for R = rows <= MaxR and T = tokens <= MaxT.
template <std::size_t MaxR, std::size_t MaxT, class Map>
inline void run_block(const Map& map, std::size_t row, std::size_t row_step, std::size_t rows,
                      std::size_t token, std::size_t tokens) noexcept {
  if constexpr (MaxR > 1) {
    if (rows < MaxR) return run_block<MaxR - 1, MaxT>(map, row, row_step, rows, token, tokens);
  }
  if constexpr (MaxT > 1) {
    if (tokens < MaxT) return run_block<MaxR, MaxT - 1>(map, row, row_step, rows, token, tokens);
  }
  map.template run<MaxR, MaxT>(row, row_step, token);
}

/// Rows that are read once go through the block as R streams, each running through its own part of the
/// matrix: several long streams keep more loads in flight than one, or than streams that jump at every row
/// end.
template <std::size_t R, std::size_t MaxT, class Map>
inline void run_streams(const Map& map, std::size_t n_rows, std::size_t n_tokens) noexcept {
  const std::size_t n = n_rows / R;
  for (std::size_t row = 0; row < n; ++row) run_block<R, MaxT>(map, row, n, R, 0, n_tokens);
  if (n * R < n_rows) run_block<R, MaxT>(map, n * R, 1, n_rows - n * R, 0, n_tokens);
}

/// Many tokens: panels of rows that fit the L2 cache; the tokens of a group stay in L1 while the panel
/// passes.
template <class Map>
inline void run_panels(const Map& map, std::size_t n_rows, std::size_t n_tokens) noexcept {
  constexpr std::size_t kRows = Map::kRows;
  const std::size_t panel = std::max<std::size_t>(1, kPanelBytes / map.row_bytes() / kRows) * kRows;
  const std::size_t n_groups = (n_tokens + Map::kTokens - 1) / Map::kTokens;
  for (std::size_t begin = 0; begin < n_rows; begin += panel) {
    const std::size_t end = std::min(begin + panel, n_rows);
    for (std::size_t g = 0; g < n_groups; ++g) {
      const std::size_t token = g * n_tokens / n_groups;  // groups of equal size, give or take one
      const std::size_t tokens = (g + 1) * n_tokens / n_groups - token;
      // The first group's loads come from memory: kRows streams through the panel. Then neighbouring rows,
      // whose outputs are stored together.
      const std::size_t n = (end - begin) / kRows;
      for (std::size_t r = 0; r < n; ++r) {
        const std::size_t row = begin + (g == 0 ? r : r * kRows);
        run_block<kRows, Map::kTokens>(map, row, g == 0 ? n : 1, kRows, token, tokens);
      }
      const std::size_t rest = begin + n * kRows;
      if (rest < end) run_block<kRows, Map::kTokens>(map, rest, 1, end - rest, token, tokens);
    }
  }
}

template <class Map>
inline void run_all(const Map& map, std::size_t n_rows, std::size_t n_tokens) noexcept {
  if (n_tokens == 1) {
    run_streams<Map::kStreams, 1>(map, n_rows, 1);
  } else if (n_tokens <= Map::kTokens) {
    run_streams<Map::kRows, Map::kTokens>(map, n_rows, n_tokens);
  } else {
    run_panels(map, n_rows, n_tokens);
  }
}

}  // namespace
}  // namespace terrace
