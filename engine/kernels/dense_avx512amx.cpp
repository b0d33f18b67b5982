// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/dense_avx512vnni.h"
#include "engine/kernels/dense_packed_avx512.h"
#include "engine/kernels/dense_split_amx.h"
#include "engine/kernels/tiles_amx.h"

// AMX multiplies a tile of 16 weight rows x 64 columns by a tile of 64 columns x 16 activation rows in 16
// cycles: a pack is such a tile as it is, and int32 sums are exact, so the bits stay the same. Tiles of bf16
// are in dense_split_amx.h. Everything but packed products is that of avx512vnni.

namespace terrace {
namespace {

static_assert(kPackRows == kTileRows && kPackColumns == kTileRowBytes);

void pack_q8(const QuantizedRow* x, std::size_t n, std::size_t d, std::byte* pack) noexcept {
  pack_rows(x, n, d, 0, pack);
}

/// Sums of a tile: [weight row][activation row].
struct alignas(64) TileSums {
  std::int32_t sum[kTileRows][kTileRows];
};

/// Sums of 32 weight rows (`two_rows`) or 16 with 32 activation rows (`two_packs`) or 16. `ahead`: the rows
/// after these are asked for, as many bytes a step as a step reads.
template <bool two_rows, bool two_packs>
void multiply(const std::int8_t* w, std::size_t row_stride, const std::byte* pack, std::size_t d, bool ahead,
              TileSums (&sums)[2][2]) noexcept {
  constexpr std::size_t kRows = two_rows ? 2 * kTileRows : kTileRows;
  _tile_zero(0);
  if constexpr (two_packs) _tile_zero(1);
  if constexpr (two_rows) _tile_zero(2);
  if constexpr (two_rows && two_packs) _tile_zero(3);
  const auto step = [&](std::size_t c, const void* first, const void* second, std::size_t stride) {
    _tile_loadd(4, first, stride);
    _tile_loadd(6, pack + c * kPackRows, kTileRowBytes);
    if constexpr (two_rows) _tile_loadd(5, second, stride);
    if constexpr (two_packs) _tile_loadd(7, pack + pack_bytes(d) + c * kPackRows, kTileRowBytes);
    _tile_dpbssd(0, 4, 6);
    if constexpr (two_packs) _tile_dpbssd(1, 4, 7);
    if constexpr (two_rows) _tile_dpbssd(2, 5, 6);
    if constexpr (two_rows && two_packs) _tile_dpbssd(3, 5, 7);
  };
  std::size_t c = 0;
  for (; c + kTileRowBytes <= d; c += kTileRowBytes) {
    if (ahead) {
      for (std::size_t r = 0; r < kRows; ++r) __builtin_prefetch(w + (kRows + r) * row_stride + c, 0, 2);
    }
    step(c, w + c, w + kTileRows * row_stride + c, row_stride);
  }
  if (c < d) {
    PartialTile first, second;
    first.fill(w + c, row_stride, kTileRows, d - c);
    if constexpr (two_rows) second.fill(w + kTileRows * row_stride + c, row_stride, kTileRows, d - c);
    step(c, first.bytes, second.bytes, kTileRowBytes);
  }
  _tile_stored(0, &sums[0][0], kTileRowBytes);
  if constexpr (two_packs) _tile_stored(1, &sums[0][1], kTileRowBytes);
  if constexpr (two_rows) _tile_stored(2, &sums[1][0], kTileRowBytes);
  if constexpr (two_rows && two_packs) _tile_stored(3, &sums[1][1], kTileRowBytes);
}

void dot_packed_q8(const std::int8_t* w, std::size_t row_stride, const float* w_scale, std::size_t n_rows,
                   const std::byte* packs, const QuantizedRow* x, std::size_t n_tokens, std::size_t d,
                   float* y, std::size_t y_stride) noexcept {
  constexpr std::int32_t kNoOffset[kTileRows] = {};
  const TileRegisters registers;
  for_tile_blocks<TileSums, kTileRows>(
      n_rows, n_tokens,
      [&](auto two_rows, auto two_packs, std::size_t row, std::size_t token, bool ahead,
          TileSums(&sums)[2][2]) {
        const std::byte* const pack = packs + token / kPackRows * pack_bytes(d);
        multiply<two_rows, two_packs>(w + row * row_stride, row_stride, pack, d, ahead, sums);
      },
      [&](const TileSums& sums, std::size_t row, std::size_t token) {
        store_scaled(reinterpret_cast<const __m512i*>(&sums), kNoOffset, w_scale + row, x + token,
                     std::min(kTileRows, n_tokens - token), y + token * y_stride + row, y_stride);
      });
}

constexpr DenseKernels make_table() noexcept {
  DenseKernels table = make_dense_kernels<Avx512Vnni>(Isa::kAvx512Amx, "avx512amx");
  table.pack_q8 = pack_q8;
  table.dot_packed_q8 = dot_packed_q8;
  table.pack_split = pack_split;
  table.dot_split_bf16 = dot_split_bf16;
  return table;
}

// Every CPU with AMX so far gains by software prefetch.
constexpr DenseKernels kTable = make_table();

}  // namespace

const DenseKernels& dense_kernels_avx512amx() noexcept { return kTable; }

}  // namespace terrace
