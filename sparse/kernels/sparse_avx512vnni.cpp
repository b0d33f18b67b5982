// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/sixteen_rows_avx512vnni.h"
#include "sparse/kernels/sparse_avx512.h"
#include "sparse/kernels/sparse_tables.h"

namespace terrace {
namespace {

/// Bytes between what a step reads and what it asks for: the rows of a controller are one run, a page border
/// stops the hardware prefetcher, and a burst of requests before the products would not overlap with them
/// (lm1b-24L q8, one thread: a token is 2 % faster; 2 and 8 KB are as good).
constexpr std::size_t kAhead = 4096;

/// dot_sixteen_rows() of the last n < 16 rows, one by one; the other lanes are 0.
inline __m512i dot_last_rows(const std::int8_t* w, std::size_t row_stride, std::size_t n,
                             const QuantizedRow& x, std::size_t d) noexcept {
  alignas(64) std::int32_t products[kSixteen] = {};
  for (std::size_t r = 0; r < n; ++r) {
    const std::int8_t* const row = w + r * row_stride;
    for (std::size_t i = 0; i < d; ++i) products[r] += row[i] * x.q[i];
  }
  return load_bytes(products);
}

void pick_q8(const std::int8_t* w, std::size_t row_stride, const float* w_scale, const float* bias,
             const QuantizedRow& x, std::size_t d, std::size_t block_size, std::size_t n_blocks,
             std::uint32_t* picks) noexcept {
  for (std::size_t b = 0; b < n_blocks; ++b) {
    FirstLargest largest;
    for (std::size_t e = 0; e < block_size; e += kSixteen) {
      const std::size_t r = b * block_size + e;
      const std::size_t n = block_size - e < kSixteen ? block_size - e : kSixteen;
      const auto there = static_cast<__mmask16>((1U << n) - 1);
      const std::int8_t* const rows = w + r * row_stride;
      const __m512i sums = n == kSixteen ? dot_sixteen_rows<kAhead>(rows, row_stride, x, d)
                                         : dot_last_rows(rows, row_stride, n, x, d);
      const __m512 z = scaled_sums(sums, _mm512_maskz_loadu_ps(there, w_scale + r), x.scale);
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
