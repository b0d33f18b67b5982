// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/dense_avx512vnni.h"

#include <algorithm>
#include "engine/kernels/dense_packed_avx512.h"

namespace terrace {
namespace {

// Activations are the unsigned side of q8 here, x + 128, so that the weights can be broadcast as they are;
// 128 times the sum of a weight row is taken off.

/// 128 times the sum of a row of weights, modulo 2^32.
std::int32_t weight_offset(const std::int8_t* w, std::size_t d) noexcept {
  __m512i sum = _mm512_setzero_si512();
  for (std::size_t c = 0; c < d; c += kPackColumns) {
    const __m512i weights = _mm512_maskz_loadu_epi8(first_lanes<__mmask64>(d - c), w + c);
    sum = add_products(sum, _mm512_set1_epi8(1), weights);
  }
  return static_cast<std::int32_t>(128U * static_cast<std::uint32_t>(Avx512Common::sum_of_lanes(sum)));
}

void dot_packed_q8(const std::int8_t* w, std::size_t row_stride, const float* w_scale, std::size_t n_rows,
                   const std::byte* packs, const QuantizedRow* x, std::size_t n_tokens, std::size_t d,
                   float* y, std::size_t y_stride) noexcept {
  for (std::size_t row = 0; row < n_rows; row += kPackRows) {
    const std::int8_t* const block = w + row * row_stride;
    const std::int8_t* const next = block + kPackRows * row_stride;
    std::int32_t offset[kPackRows];
    for (std::size_t r = 0; r < kPackRows; ++r) offset[r] = weight_offset(block + r * row_stride, d);
    for (std::size_t t = 0; t < n_tokens; t += kPackRows) {
      const std::byte* pack = packs + t / kPackRows * pack_bytes(d);
      __m512i sums[kPackRows];
      TERRACE_UNROLL
      for (std::size_t r = 0; r < kPackRows; ++r) sums[r] = _mm512_setzero_si512();
      for (std::size_t c = 0; c < d; c += 4, pack += 4 * kPackRows) {
        const __m512i xs = load_bytes(pack);
        // A step takes as many bytes of the block as a cache line has: one line of the next block.
        if (t == 0) __builtin_prefetch(next + kPackRows * c);
        // Every fourth row has a pointer: sixteen addresses would not fit the general registers.
        const std::int8_t* w0 = block + c;
        TERRACE_UNROLL
        for (std::size_t r = 0; r < kPackRows; r += 4, w0 += 4 * row_stride) {
          sums[r] = add_products(sums[r], xs, broadcast_four(w0));
          sums[r + 1] = add_products(sums[r + 1], xs, broadcast_four(w0 + row_stride));
          sums[r + 2] = add_products(sums[r + 2], xs, broadcast_four(w0 + 2 * row_stride));
          sums[r + 3] = add_products(sums[r + 3], xs, broadcast_four(w0 + 3 * row_stride));
        }
      }
      store_scaled(sums, offset, w_scale + row, x + t, std::min(kPackRows, n_tokens - t),
                   y + t * y_stride + row, y_stride);
    }
  }
}

struct Q4Vectors {
  static constexpr std::size_t kRows = 16;
  using Sums = __m512i;
  using X = __m512i;
  static X load_x(const std::byte* x) noexcept { return load_bytes(x); }
  static Sums start(const std::int32_t* minus_eight) noexcept { return load_bytes(minus_eight); }
  static void add(Sums& sums, const std::int8_t* w, X x) noexcept {
    sums = add_products(sums, broadcast_four(w), x);
  }
  static void finish(Sums sums, const std::int32_t*, Avx512Common::F (&out)[1]) noexcept {
    out[0] = _mm512_cvtepi32_ps(sums);
  }
};

using PackedQ4 = PackedQ4ByVectors<Avx512Common, PackedQ4Avx512, Q4Vectors>;

constexpr DenseKernels make_table() noexcept {
  DenseKernels table = make_dense_kernels<Avx512Vnni>(Isa::kAvx512Vnni, "avx512vnni");
  table.dot_q8 = dot_q8_short;
  table.pack_q8 = pack_rows<0x80>;
  table.dot_packed_q8 = dot_packed_q8;
  table.pack_q4 = pack_q4;
  table.dot_packed_q4 = dot_packed_q4<PackedQ4>;
  return table;
}

constexpr DenseKernels kTable = make_table();
constexpr DenseKernels kUnprefetched = make_unprefetched<Avx512Vnni>(kTable);

}  // namespace

const DenseKernels& dense_kernels_avx512vnni(bool prefetch) noexcept {
  return prefetch ? kTable : kUnprefetched;
}

}  // namespace terrace
