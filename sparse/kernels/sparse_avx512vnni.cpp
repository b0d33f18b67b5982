// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/lanes_avx512vnni.h"
#include "sparse/kernels/sparse_avx512.h"
#include "sparse/kernels/sparse_tables.h"

namespace terrace {
namespace {

/// Rows whose sums leave the adding-up tree as one register.
constexpr std::size_t kRows = 16;

/// Bytes between what a step reads and what it asks for: the rows of a controller are one run, a page border
/// stops the hardware prefetcher, and a burst of requests before the products would not overlap with them
/// (lm1b-24L q8, one thread: a token is 2 % faster; 2 and 8 KB are as good).
constexpr std::size_t kAhead = 4096;

/// [sum a, sum b] of each quarter register, in turn: half of a step of the tree.
inline __m512i add_pairs32(__m512i a, __m512i b) noexcept {
  return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}
inline __m512i add_pairs64(__m512i a, __m512i b) noexcept {
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/// Lane r of the result is the sum of the lanes of sums[r].
inline __m512i add_up(const __m512i* sums) noexcept {
  __m512i quarter[4];  // quarter[i]: sums of 4 i .. 4 i + 3 in every 128 bits, a quarter of each
  TERRACE_UNROLL
  for (std::size_t i = 0; i < 4; ++i) {
    const __m512i* const s = sums + 4 * i;
    quarter[i] = add_pairs64(add_pairs32(s[0], s[1]), add_pairs32(s[2], s[3]));
  }
  // 0x88 and 0xdd take the even and the odd quarters of two registers.
  const __m512i low = _mm512_add_epi32(_mm512_shuffle_i32x4(quarter[0], quarter[1], 0x88),
                                       _mm512_shuffle_i32x4(quarter[0], quarter[1], 0xdd));
  const __m512i high = _mm512_add_epi32(_mm512_shuffle_i32x4(quarter[2], quarter[3], 0x88),
                                        _mm512_shuffle_i32x4(quarter[2], quarter[3], 0xdd));
  return _mm512_add_epi32(_mm512_shuffle_i32x4(low, high, 0x88), _mm512_shuffle_i32x4(low, high, 0xdd));
}

/// Inner products of rows w + r * row_stride, r < kRows, with x; all kRows rows are there.
inline __m512i dot_rows(const std::int8_t* w, std::size_t row_stride, const QuantizedRow& x,
                        std::size_t d) noexcept {
  const __m512i offset = _mm512_set1_epi8(-128);  // makes int8 unsigned, as dpbusd wants one of its operands
  const std::size_t whole = d / 64 * 64;
  const __mmask64 tail = (std::uint64_t{1} << (d - whole)) - 1;
  __m512i sums[kRows];
  TERRACE_UNROLL
  for (std::size_t r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_si512();
  for (std::size_t i = 0; i < whole; i += 64) {
    const __m512i xs = load_bytes(x.q + i);
    const std::int8_t* row = w + i;
    TERRACE_UNROLL
    for (std::size_t r = 0; r < kRows; ++r, row += row_stride) {
      __builtin_prefetch(row + kAhead);
      sums[r] = add_products(sums[r], _mm512_xor_si512(load_bytes(row), offset), xs);
    }
  }
  if (tail != 0) {
    const __m512i xs = _mm512_maskz_loadu_epi8(tail, x.q + whole);
    const std::int8_t* row = w + whole;
    TERRACE_UNROLL
    for (std::size_t r = 0; r < kRows; ++r, row += row_stride) {
      __builtin_prefetch(row + kAhead);
      const __m512i ws = _mm512_xor_si512(_mm512_maskz_loadu_epi8(tail, row), offset);
      sums[r] = add_products(sums[r], ws, xs);
    }
  }
  const auto too_much = static_cast<std::int32_t>(128U * static_cast<std::uint32_t>(x.sum));
  return _mm512_sub_epi32(add_up(sums), _mm512_set1_epi32(too_much));
}

/// The same of the last n < kRows rows, one by one; the other lanes are 0.
inline __m512i dot_last_rows(const std::int8_t* w, std::size_t row_stride, std::size_t n,
                             const QuantizedRow& x, std::size_t d) noexcept {
  alignas(64) std::int32_t products[kRows] = {};
  for (std::size_t r = 0; r < n; ++r) {
    const std::int8_t* const row = w + r * row_stride;
    for (std::size_t i = 0; i < d; ++i) products[r] += row[i] * x.q[i];
  }
  return load_bytes(products);
}

void pick_q8(const std::int8_t* w, std::size_t row_stride, const float* w_scale, const float* bias,
             const QuantizedRow& x, std::size_t d, std::size_t block_size, std::size_t n_blocks,
             std::uint32_t* picks) noexcept {
  const __m512 x_scale = _mm512_set1_ps(x.scale);
  for (std::size_t b = 0; b < n_blocks; ++b) {
    FirstLargest largest;
    for (std::size_t e = 0; e < block_size; e += kRows) {
      const std::size_t r = b * block_size + e;
      const std::size_t n = block_size - e < kRows ? block_size - e : kRows;
      const auto there = static_cast<__mmask16>((1U << n) - 1);
      const std::int8_t* const rows = w + r * row_stride;
      const __m512i sums =
          n == kRows ? dot_rows(rows, row_stride, x, d) : dot_last_rows(rows, row_stride, n, x, d);
      const __m512 z = _mm512_mul_ps(_mm512_cvtepi32_ps(sums),
                                     _mm512_mul_ps(_mm512_maskz_loadu_ps(there, w_scale + r), x_scale));
      largest.take(_mm512_add_ps(z, _mm512_maskz_loadu_ps(there, bias + r)), there);
    }
    picks[b] = largest.index();
  }
}

constexpr SparseKernels kTable = {
    .isa = Isa::kAvx512Vnni, .name = "avx512vnni", .biased_argmax = biased_argmax, .pick_q8 = pick_q8};

}  // namespace

const SparseKernels& sparse_kernels_avx512vnni() noexcept { return kTable; }

}  // namespace terrace
