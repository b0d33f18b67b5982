// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "engine/tile_scope.h"

namespace terrace {
namespace {

constexpr std::size_t kTileRows = 16;
constexpr std::size_t kTileRowBytes = 64;

/// So many weight rows or fewer are not prefetched.
constexpr std::size_t kFewRows = 64;

/// int32 sums of a tile: [weight row][activation row].
struct alignas(64) TileSums {
  std::int32_t sum[kTileRows][kTileRows];
};

/// Stores at p before this call are done after it, and later ones do not move before it: GCC's intrinsics
/// that load tiles do not say what memory they read, so the compiler could drop or move stores.
inline void settle(const void* p) noexcept { asm volatile("" : : "r"(p) : "memory"); }

inline void release_tiles() noexcept { _tile_release(); }

/// While alive, holds the tile registers of this thread: eight tiles of 16 rows of 64 bytes. About 80 ns, and
/// as much for what follows to start again; nothing within a TileScope that has them already.
class TileRegisters {
 public:
  /// Tiles in `narrow`, one bit each, have rows of only `narrow_bytes` bytes, those in `low` only `low_rows`
  /// rows.
  explicit TileRegisters(unsigned narrow = 0, std::size_t narrow_bytes = kTileRowBytes, unsigned low = 0,
                         std::size_t low_rows = kTileRows) noexcept {
    const std::uint64_t key = std::uint64_t{1} << 63 | std::uint64_t{low_rows} << 48 |
                              std::uint64_t{narrow_bytes} << 32 | std::uint64_t{low} << 16 | narrow;
    if (tile_state.configuration == key) return;
    struct alignas(64) Configuration {
      std::uint8_t palette = 1;
      std::uint8_t start_row = 0;
      std::uint8_t reserved[14] = {};
      std::uint16_t row_bytes[16] = {};
      std::uint8_t rows[16] = {};
    } configuration;
    for (unsigned i = 0; i < 8; ++i) {
      const bool is_narrow = ((narrow >> i) & 1U) != 0;
      configuration.row_bytes[i] = static_cast<std::uint16_t>(is_narrow ? narrow_bytes : kTileRowBytes);
      const bool is_low = ((low >> i) & 1U) != 0;
      configuration.rows[i] = static_cast<std::uint8_t>(is_low ? low_rows : kTileRows);
    }
    settle(&configuration);
    _tile_loadconfig(&configuration);
    tile_state = {tile_state.kept, key, release_tiles};
  }
  ~TileRegisters() {
    if (tile_state.kept) return;
    _tile_release();
    tile_state.configuration = 0;
  }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

/// Stores tile register `tile`, of 0 to 3. The intrinsics take nothing but literals.
template <std::size_t tile>
inline void store_tile(void* sums) noexcept {
  static_assert(tile < 4);
  if constexpr (tile == 0) _tile_stored(0, sums, kTileRowBytes);
  if constexpr (tile == 1) _tile_stored(1, sums, kTileRowBytes);
  if constexpr (tile == 2) _tile_stored(2, sums, kTileRowBytes);
  if constexpr (tile == 3) _tile_stored(3, sums, kTileRowBytes);
}

/// Two by two tiles of sums, or one where there are no more: registers 0 to 3 hold the sums [rows][pack],
/// 4 and 5 the weights of the rows, 6 and 7 the packs.
template <bool two_rows, bool two_packs>
struct TileBlock {
  static void clear() noexcept {
    _tile_zero(0);
    if constexpr (two_packs) _tile_zero(1);
    if constexpr (two_rows) _tile_zero(2);
    if constexpr (two_rows && two_packs) _tile_zero(3);
  }
  template <class Sums>
  static void load(const Sums (&sums)[2][2]) noexcept {
    _tile_loadd(0, &sums[0][0], kTileRowBytes);
    if constexpr (two_packs) _tile_loadd(1, &sums[0][1], kTileRowBytes);
    if constexpr (two_rows) _tile_loadd(2, &sums[1][0], kTileRowBytes);
    if constexpr (two_rows && two_packs) _tile_loadd(3, &sums[1][1], kTileRowBytes);
  }
  template <class Sums>
  static void store(Sums (&sums)[2][2]) noexcept {
    store_tile<0>(&sums[0][0]);
    if constexpr (two_packs) store_tile<1>(&sums[0][1]);
    if constexpr (two_rows) store_tile<2>(&sums[1][0]);
    if constexpr (two_rows && two_packs) store_tile<3>(&sums[1][1]);
  }
  static void add_products_q8() noexcept {
    _tile_dpbssd(0, 4, 6);
    if constexpr (two_packs) _tile_dpbssd(1, 4, 7);
    if constexpr (two_rows) _tile_dpbssd(2, 5, 6);
    if constexpr (two_rows && two_packs) _tile_dpbssd(3, 5, 7);
  }
  static void add_products_bf16() noexcept {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (two_packs) _tile_dpbf16ps(1, 4, 7);
    if constexpr (two_rows) _tile_dpbf16ps(2, 5, 6);
    if constexpr (two_rows && two_packs) _tile_dpbf16ps(3, 5, 7);
  }
};

/// Products of n_rows weight rows with n_tokens activation rows, in blocks of two by two tiles of sums, or
/// one where there are no more; a tile of sums is a `Sums` and holds kTileRows weight rows and kTokens
/// activation rows.
///   multiply(two_rows, two_packs, row, token, ahead, sums)   sums of a block; the first two are constants.
///                                   `ahead`: rows follow these that nobody has prefetched yet
///   store(sums, row, token)         outputs of one tile
/// A block is stored while the tiles of the one after are multiplied, because storing waits for its tiles.
template <class Sums, std::size_t kTokens, class Multiply, class Store>
inline void for_tile_blocks(std::size_t n_rows, std::size_t n_tokens, Multiply multiply,
                            Store store) noexcept {
  struct Block {
    std::size_t row = 0, n_rows = 0, token = 0, n_tokens = 0;
  };
  const auto store_block = [&](const Block& block, const Sums(&sums)[2][2]) {
    for (std::size_t i = 0; i * kTileRows < block.n_rows; ++i) {
      for (std::size_t j = 0; j * kTokens < block.n_tokens; ++j) {
        store(sums[i][j], block.row + i * kTileRows, block.token + j * kTokens);
      }
    }
  };
  Sums sums[2][2][2];
  Block before;
  std::size_t turn = 0;
  for (std::size_t row = 0; row < n_rows; row += 2 * kTileRows) {
    const std::size_t rows = std::min(2 * kTileRows, n_rows - row);
    for (std::size_t t = 0; t < n_tokens; t += 2 * kTokens, turn = 1 - turn) {
      const std::size_t tokens = std::min(2 * kTokens, n_tokens - t);
      // Rows come from memory once; the packs that follow find them in the caches. Few rows, which belong to
      // layers of modules, are left to the hardware prefetcher.
      const bool ahead = t == 0 && row + rows < n_rows && n_rows > kFewRows;
      const auto with_packs = [&](auto two_rows) {
        tokens > kTokens ? multiply(two_rows, std::true_type{}, row, t, ahead, sums[turn])
                         : multiply(two_rows, std::false_type{}, row, t, ahead, sums[turn]);
      };
      rows > kTileRows ? with_packs(std::true_type{}) : with_packs(std::false_type{});
      if (before.n_rows > 0) store_block(before, sums[1 - turn]);
      before = {row, rows, t, tokens};
    }
  }
  store_block(before, sums[1 - turn]);
}

/// A tile that cannot be loaded in place because a part of it does not exist.
struct alignas(64) PartialTile {
  /// n_rows rows, row_bytes bytes of each; zeros elsewhere.
  void fill(const void* from, std::size_t stride, std::size_t n_rows, std::size_t row_bytes) noexcept {
    settle(this);
    const __mmask64 there = row_bytes >= kTileRowBytes ? ~__mmask64{0} : (__mmask64{1} << row_bytes) - 1;
    for (std::size_t r = 0; r < kTileRows; ++r) {
      const auto* const row = static_cast<const char*>(from) + r * stride;
      const __m512i part = r < n_rows ? _mm512_maskz_loadu_epi8(there, row) : _mm512_setzero_si512();
      _mm512_store_si512(bytes + r * kTileRowBytes, part);
    }
    settle(this);
  }
  std::byte bytes[kTileRows * kTileRowBytes];
};

}  // namespace
}  // namespace terrace
