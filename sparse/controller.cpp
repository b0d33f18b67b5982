// SPDX-License-Identifier: Apache-2.0
#include "sparse/controller.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/error.h"
#include "engine/prefetch.h"
#include "sparse/softmax_at.h"

namespace terrace {

Controller::Controller(const DenseKernels& kernels, const WeightView& down, const WeightView& up,
                       const float* bias, std::size_t block_size)
    : kernels_(&kernels),
      sparse_(&sparse_kernels(kernels.isa)),
      down_(kernels, down, nullptr),
      up_(up),
      bias_(bias),
      block_size_(block_size) {
  TERRACE_CHECK(
      down && up && bias && down.rows == up.cols && block_size > 0 && up.rows % block_size == 0, kBadArgument,
      fmt::format("controller: down [{}, {}] and up [{}, {}] do not fit each other or blocks of {} units",
                  down.rows, down.cols, up.rows, up.cols, block_size));
}

std::size_t Controller::bytes_per_token(std::size_t width) const noexcept {
  return down_.weight().bytes() + up_.slice_rows(0, width).bytes() + width * sizeof(float);
}

void Controller::prefetch(std::size_t begin, std::size_t end) const noexcept {
  end = std::min(end, n_units() / block_size_);
  if (is_quantized(up_.dtype) || packs() == Packs::kSplit || begin >= end) return;
  prefetch_bytes(up_.row(begin * block_size_),
                 (end - begin) * block_size_ * row_bytes(up_.dtype, up_.row_stride));
}

void Controller::pick(const PreparedRows& h, std::size_t begin, std::size_t end, float* logits,
                      std::uint32_t* picks, float* softmax, std::size_t stride) const noexcept {
  const std::size_t n_units = (end - begin) * block_size_;
  // Packs are a dense product's affair, and many times as fast as a row for itself.
  if (sparse_->pick_q8 && up_.dtype == DType::kQ8 && h.n_packed() == 0 && !softmax) {
    const WeightView rows = up_.slice_rows(begin * block_size_, n_units);
    for (std::size_t t = 0; t < h.size(); ++t) {
      sparse_->pick_q8(reinterpret_cast<const std::int8_t*>(rows.row(0)), rows.row_stride,
                       reinterpret_cast<const float*>(rows.row_scale(0)), bias_ + begin * block_size_,
                       h.q8()[t], rows.cols, block_size_, end - begin, picks + t * stride + begin);
    }
    return;
  }
  dot_rows(*kernels_, up_.slice_rows(begin * block_size_, n_units), 0, n_units, h, logits, n_units);
  for (std::size_t t = 0; t < h.size(); ++t) {
    for (std::size_t b = begin; b < end; ++b) {
      const float* const z = logits + t * n_units + (b - begin) * block_size_;
      const float* const bias = bias_ + b * block_size_;
      const std::uint32_t best = sparse_->biased_argmax(z, bias, block_size_);
      picks[t * stride + b] = best;
      if (!softmax) continue;
      softmax[t * stride + b] = softmax_at([=](std::size_t e) { return z[e] + bias[e]; }, block_size_, best);
    }
  }
}

}  // namespace terrace
