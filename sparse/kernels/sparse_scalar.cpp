// SPDX-License-Identifier: Apache-2.0
// The specification: every other table must return these results.
#include <limits>

#include "sparse/kernels/sparse_tables.h"

namespace terrace {
namespace {

std::uint32_t biased_argmax(const float* z, const float* bias, std::size_t n) noexcept {
  float top = -std::numeric_limits<float>::infinity();
  std::uint32_t winner = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const float value = z[i] + bias[i];
    if (value > top) {  // false for NaN, and for a tie
      top = value;
      winner = static_cast<std::uint32_t>(i);
    }
  }
  return winner;
}

constexpr SparseKernels kTable = {
    .isa = Isa::kScalar, .name = "scalar", .biased_argmax = biased_argmax, .pick_q8 = nullptr};

}  // namespace

const SparseKernels& sparse_kernels_scalar() noexcept { return kTable; }

}  // namespace terrace
