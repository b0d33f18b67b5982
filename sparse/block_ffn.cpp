// SPDX-License-Identifier: Apache-2.0
#include "sparse/block_ffn.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "sparse/kernels/sparse_kernels.h"

namespace terrace {
namespace {

/// Rows of w2 added in one kernel call: bounds the pointers on the stack of a chunk.
constexpr std::size_t kRowsPerCall = 32;

float softmax_at(const float* z, std::size_t n, std::size_t i) noexcept {
  float sum = 0.0F;
  for (std::size_t e = 0; e < n; ++e) sum += std::exp(z[e] - z[i]);
  return 1.0F / sum;
}

}  // namespace

BlockFfn::BlockFfn(const DenseKernels& kernels, const WeightView& router, const WeightView& units,
                   const float* bias, bool multiply_by_router)
    : kernels_(&kernels),
      sparse_(&sparse_kernels(kernels.isa)),
      router_(kernels, router, nullptr),
      units_(units),
      bias_(bias),
      multiply_by_router_(multiply_by_router) {
  TERRACE_CHECK(router && units && router.cols == units.cols && units.rows % (2 * router.rows) == 0,
                kBadArgument,
                fmt::format("block feed-forward: units [{}, {}] do not fit a router [{}, {}]", units.rows,
                            units.cols, router.rows, router.cols));
}

std::size_t BlockFfn::bytes_per_token() const noexcept {
  return router_.weight().bytes() + units_.slice_rows(0, units_.rows / n_experts()).bytes() +
         (bias_ ? d_model() * sizeof(float) : 0);
}

void BlockFfn::forward(Exec& exec, ConstRows x, Rows y, std::uint32_t* experts) const {
  const Workspace::Scope scope(exec.ws);
  Workspace& ws = exec.ws;
  const std::size_t n_units = d_ff() / n_experts();
  const Rows logits{ws.take<float>(x.n * n_experts()), x.n, n_experts(), n_experts()};
  router_.forward(exec, x, logits);
  auto* const no_bias = ws.take<float>(n_experts());
  std::fill_n(no_bias, n_experts(), 0.0F);
  const PreparedRows prepared(exec, *kernels_, units_.dtype, x);
  auto* const h = ws.take<float>(n_units);
  auto* const rows = ws.take<std::uint32_t>(n_units);

  for (std::size_t t = 0; t < x.n; ++t) {
    const float* const z = logits.row(t);
    const std::uint32_t expert = sparse_->biased_argmax(z, no_bias, n_experts());
    const float gain = multiply_by_router_ ? softmax_at(z, n_experts(), expert) : 1.0F;
    if (experts) experts[t] = expert;
    const auto w1_row = [&](std::size_t i) { return 2 * (expert * n_units + i); };

    exec.for_range(n_units, 16, row_bytes(units_.dtype, d_model()), [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        dot_rows(*kernels_, units_.slice_rows(w1_row(i), 1), 0, 1, prepared.slice(t, 1), h + i, 1);
        h[i] *= gain;
      }
      kernels_->relu(h + begin, end - begin);
    });

    // Rows of zero activations are not worth reading; a NaN is kept.
    std::size_t n_active = 0;
    for (std::size_t i = 0; i < n_units; ++i) {
      if (h[i] == 0.0F) continue;
      h[n_active] = h[i];
      rows[n_active++] = static_cast<std::uint32_t>(w1_row(i) + 1);
    }
    exec.for_range(d_model(), kQ4Columns, n_active * sizeof(float), [&](std::size_t begin, std::size_t end) {
      float scratch_a[kRowsPerCall];
      const void* scratch_rows[2 * kRowsPerCall];
      std::fill(y.row(t) + begin, y.row(t) + end, 0.0F);
      for (std::size_t i = 0; i < n_active; i += kRowsPerCall) {
        axpy_rows(*kernels_, units_, h + i, rows + i, std::min(kRowsPerCall, n_active - i), begin, end,
                  y.row(t), scratch_a, scratch_rows);
      }
      if (bias_) kernels_->add(y.row(t) + begin, bias_ + begin, end - begin);
    });
  }
}

}  // namespace terrace
