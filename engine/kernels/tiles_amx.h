// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace terrace {
namespace {

constexpr std::size_t kTileRows = 16;
constexpr std::size_t kTileRowBytes = 64;

/// The tile registers of this thread while it lives: eight tiles of 16 rows of 64 bytes. About 80 ns.
class TileRegisters {
 public:
  /// Tiles in `narrow`, a bit each, have rows of only `narrow_bytes`.
  explicit TileRegisters(unsigned narrow = 0, std::size_t narrow_bytes = kTileRowBytes) noexcept {
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
      configuration.rows[i] = kTileRows;
    }
    _tile_loadconfig(&configuration);
  }
  ~TileRegisters() { _tile_release(); }  // tiles in use make every switch of threads slower
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

/// Which sums lie in memory, not yet stored as outputs: scaling, turning and storing them waits for the
/// tiles, so it is done while the tiles of the block after are multiplied (lm1b-24L, 256 tokens: a third of
/// the time).
struct TileBlock {
  std::size_t row = 0, n_rows = 0, token = 0, n_tokens = 0;
};

/// A tile that cannot be loaded where it lies because a part of it is not there.
struct alignas(64) PartialTile {
  /// n_rows rows, row_bytes bytes of each; zeros elsewhere.
  void fill(const void* from, std::size_t stride, std::size_t n_rows, std::size_t row_bytes) noexcept {
    const __mmask64 there = row_bytes >= kTileRowBytes ? ~__mmask64{0} : (__mmask64{1} << row_bytes) - 1;
    for (std::size_t r = 0; r < kTileRows; ++r) {
      const auto* const row = static_cast<const char*>(from) + r * stride;
      const __m512i part = r < n_rows ? _mm512_maskz_loadu_epi8(there, row) : _mm512_setzero_si512();
      _mm512_store_si512(bytes + r * kTileRowBytes, part);
    }
  }
  std::byte bytes[kTileRows * kTileRowBytes];
};

}  // namespace
}  // namespace terrace
