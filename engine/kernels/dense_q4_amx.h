// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "engine/kernels/dense_avx512.h"
#include "engine/kernels/dense_packed_avx512.h"
#include "engine/kernels/tiles_amx.h"

namespace terrace {
namespace {

/// q4: a group is half a tile wide. Its sums are stored, become floats, are scaled and added. Tiles, stores
/// and vectors each work on a different group, so they overlap: a store waits for its tile, a load for its
/// store.
struct PackedQ4 : PackedQ4Avx512 {
  using F = Avx512Common::F;
  static constexpr std::size_t kGroupBytes = kQ4Group * kPackRows;  // of a pack
  static constexpr std::size_t kInFlight = 4;                       // groups
  static constexpr std::size_t kStoreAfter = 2;  // a group is stored when the second after it has begun,
  static constexpr std::size_t kAddAfter = 4;    // and added with the fourth

  TileRegisters registers{0x30, kQ4Group, 0xc0, kQ4Group / 4};  // 4, 5: weights; 6, 7: activations

  static void unpack(const std::uint8_t* p, std::int8_t* out) noexcept { Avx512Common::unpack_q4(p, out); }

  /// Sums of a group in tile `tile`, 0..3.
  template <std::size_t tile>
  static void start(const std::int8_t* w, const std::byte* x) noexcept {
    if constexpr (tile == 0) {
      _tile_zero(0);
      _tile_loadd(4, w, kQ4Columns);
      _tile_loadd(6, x, kTileRowBytes);
      _tile_dpbssd(0, 4, 6);
    } else if constexpr (tile == 1) {
      _tile_zero(1);
      _tile_loadd(5, w, kQ4Columns);
      _tile_loadd(7, x, kTileRowBytes);
      _tile_dpbssd(1, 5, 7);
    } else if constexpr (tile == 2) {
      _tile_zero(2);
      _tile_loadd(4, w, kQ4Columns);
      _tile_loadd(6, x, kTileRowBytes);
      _tile_dpbssd(2, 4, 6);
    } else {
      _tile_zero(3);
      _tile_loadd(5, w, kQ4Columns);
      _tile_loadd(7, x, kTileRowBytes);
      _tile_dpbssd(3, 5, 7);
    }
  }

  void multiply(const UnpackedQ4& rows, std::size_t n_groups, const std::byte* pack, const std::int32_t*,
                PackTotals& totals) const noexcept {
    std::uint8_t order[kQ4Span / kQ4Group];  // of the groups
    std::size_t n = 0;
    for (const std::size_t k : {0, 2, 1, 3}) {
      for (std::size_t g = k; g < n_groups; g += kQ4Sums) order[n++] = static_cast<std::uint8_t>(g);
    }
    TileSums sums[kInFlight];
    PackTotals pairs[2];  // sum 0 + sum 2, sum 1 + sum 3
    F chain[kPackRows];
    const auto clear = [&] {
      TERRACE_UNROLL
      for (std::size_t r = 0; r < kPackRows; ++r) chain[r] = Avx512Common::set(0.0F);
    };
    const auto finish_chain = [&](std::size_t k) {
      PackTotals& pair = pairs[k % 2];
      TERRACE_UNROLL
      for (std::size_t r = 0; r < kPackRows; ++r) {
        if (k >= 2) chain[r] = Avx512Common::add(Avx512Common::load(pair.of[r]), chain[r]);
        Avx512Common::store(pair.of[r], chain[r]);
      }
      clear();
    };
    const auto add = [&](std::size_t i, const TileSums& group) {
      const std::size_t g = order[i];
      TERRACE_UNROLL
      for (std::size_t r = 0; r < kPackRows; ++r) {
        const F products = _mm512_cvtepi32_ps(_mm512_load_si512(group.sum[r]));
        chain[r] = Avx512Common::fma(products, Avx512Common::set(rows.scale[g][r]), chain[r]);
      }
      if (i + 1 == n || order[i + 1] % kQ4Sums != g % kQ4Sums) finish_chain(g % kQ4Sums);
    };
    const auto step = [&](auto tile, std::size_t i) {
      if (i < n)
        start<tile>(&rows.w[order[i] / 2][0][order[i] % 2 * kQ4Group], pack + order[i] * kGroupBytes);
      constexpr std::size_t stored = (tile + kInFlight - kStoreAfter) % kInFlight;
      if (i >= kStoreAfter && i < n + kStoreAfter) store_tile<stored>(&sums[stored]);
      settle(&sums);
      if (i >= kAddAfter && i < n + kAddAfter)
        add(i - kAddAfter, sums[(tile + kInFlight - kAddAfter) % kInFlight]);
    };
    clear();
    settle(&rows);
    for (std::size_t i = 0; i < n + kAddAfter; i += kInFlight) {
      step(std::integral_constant<std::size_t, 0>{}, i);
      step(std::integral_constant<std::size_t, 1>{}, i + 1);
      step(std::integral_constant<std::size_t, 2>{}, i + 2);
      step(std::integral_constant<std::size_t, 3>{}, i + 3);
    }
    for (std::size_t r = 0; r < kPackRows; ++r) {
      const F both =
          Avx512Common::add(Avx512Common::load(pairs[0].of[r]), Avx512Common::load(pairs[1].of[r]));
      Avx512Common::store(totals.of[r], Avx512Common::add(Avx512Common::load(totals.of[r]), both));
    }
  }
};

}  // namespace
}  // namespace terrace
