// SPDX-License-Identifier: Apache-2.0
#include "sparse/sparse_ffn.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/error.h"

namespace terrace {
namespace {

/// Tokens that go through the controller together: its weights are read once for all of them.
constexpr std::size_t kBatch = 8;

/// A group is the share of work that a thread claims: at least this many blocks, so that the rows of several
/// picks can be on their way from memory at once, and ...
constexpr std::size_t kMinBlocksPerGroup = 8;
/// ... not many more groups than this, because each has an accumulator of d floats per token to be added up
/// at the end.
constexpr std::size_t kWantedGroups = 16;

/// Unit rows are fetched ahead up to here; the hardware prefetcher follows on from there.
constexpr std::size_t kPrefetchBytes = 4096;

void prefetch_row(const WeightView& w, std::size_t row) noexcept {
  const std::byte* const data = w.row(row);
  const std::size_t n = std::min(row_bytes(w.dtype, w.cols), kPrefetchBytes);
  for (std::size_t i = 0; i < n; i += kCacheLine) __builtin_prefetch(data + i);
  if (w.scale) __builtin_prefetch(w.row_scale(row));
}

}  // namespace

/// One batch of tokens on its way through the layer. Pointers into the workspace; [..] are shapes.
struct SparseFfn::Pass {
  const PreparedRows& x;      ///< for the units
  const PreparedRows& h;      ///< controller.down x
  std::size_t n_blocks;       ///< in use
  std::uint32_t* units;       ///< chosen units [T, n_blocks]
  float* gains;               ///< controller's softmax at the choice [T, n_blocks], or null
  float* logits;              ///< [group, T, N]
  float* activations;         ///< [group, blocks_per_group]
  std::uint32_t* rows;        ///< w2 rows of the non-zero activations [group, blocks_per_group]
  float* scratch_a;           ///< [group, blocks_per_group]
  const void** scratch_rows;  ///< [group, 2 * blocks_per_group]
  float* sums;                ///< [group, T, d]
};

SparseFfn::SparseFfn(const DenseKernels& kernels, const Controller& controller, const WeightView& units,
                     const float* bias, bool multiply_by_controller)
    : kernels_(&kernels),
      controller_(controller),
      units_(units),
      bias_(bias),
      multiply_by_controller_(multiply_by_controller) {
  TERRACE_CHECK(
      units && units.rows == 2 * controller.n_units() && units.cols == controller.d_model(), kBadArgument,
      fmt::format("sparse feed-forward: expected units [2 * {}, {}] as the controller has it, found [{}, {}]",
                  controller.n_units(), controller.d_model(), units.rows, units.cols));
  blocks_per_group_ = std::max(kMinBlocksPerGroup, (n_blocks() + kWantedGroups - 1) / kWantedGroups);
}

std::size_t SparseFfn::bytes_per_token(std::size_t width) const noexcept {
  return controller_.bytes_per_token(width) + units_.slice_rows(0, 2 * width / block_size()).bytes() +
         (bias_ ? d_model() * sizeof(float) : 0);
}

void SparseFfn::forward(Exec& exec, ConstRows x, Rows y, std::size_t width,
                        std::uint32_t* active_units) const {
  TERRACE_DCHECK(width > 0 && width <= d_ff() && width % block_size() == 0);
  const std::size_t n_blocks = width / block_size();
  for (std::size_t t = 0; t < x.n; t += kBatch) {
    const std::size_t n = std::min(kBatch, x.n - t);
    forward_batch(exec, x.slice(t, n), y.slice(t, n), n_blocks,
                  active_units ? active_units + t * n_blocks : nullptr);
  }
}

void SparseFfn::forward_batch(Exec& exec, ConstRows x, Rows y, std::size_t n_blocks,
                              std::uint32_t* active_units) const {
  const Workspace::Scope scope(exec.ws);
  Workspace& ws = exec.ws;
  const DType down_dtype = controller_.down().weight().dtype;
  const PreparedRows x_down(exec, *kernels_, down_dtype, x);
  const PreparedRows x_units =
      same_preparation(down_dtype, units_.dtype) ? x_down : PreparedRows(exec, *kernels_, units_.dtype, x);
  const std::size_t r = controller_.d_lowrank();
  const Rows h{ws.take<float>(x.n * r), x.n, r, r};
  controller_.down().forward(exec, x_down, h);
  const PreparedRows h_up(exec, *kernels_, controller_.up_dtype(), h);

  const std::size_t n_groups = (n_blocks + blocks_per_group_ - 1) / blocks_per_group_;
  const std::size_t n_slots = n_groups * blocks_per_group_;
  const Pass pass{.x = x_units,
                  .h = h_up,
                  .n_blocks = n_blocks,
                  .units = active_units ? active_units : ws.take<std::uint32_t>(x.n * n_blocks),
                  .gains = multiply_by_controller_ ? ws.take<float>(x.n * n_blocks) : nullptr,
                  .logits = ws.take<float>(n_groups * x.n * block_size()),
                  .activations = ws.take<float>(n_slots),
                  .rows = ws.take<std::uint32_t>(n_slots),
                  .scratch_a = ws.take<float>(n_slots),
                  .scratch_rows = ws.take<const void*>(2 * n_slots),
                  .sums = ws.take<float>(n_groups * x.n * d_model())};
  exec.for_range(n_groups, 1, bytes_per_token(n_blocks * block_size()) / n_groups,
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t group = begin; group < end; ++group) run_group(pass, group);
                 });

  exec.for_range(d_model(), kQ4Columns, n_groups * x.n * sizeof(float),
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t t = 0; t < x.n; ++t) {
                     float* const out = y.row(t) + begin;
                     std::copy_n(pass.sums + t * d_model() + begin, end - begin, out);
                     for (std::size_t group = 1; group < n_groups; ++group) {
                       kernels_->add(out, pass.sums + (group * x.n + t) * d_model() + begin, end - begin);
                     }
                     if (bias_) kernels_->add(out, bias_ + begin, end - begin);
                   }
                 });
}

void SparseFfn::run_group(const Pass& pass, std::size_t group) const noexcept {
  const std::size_t n_tokens = pass.x.size();
  const std::size_t first = group * blocks_per_group_;
  const std::size_t last = std::min(first + blocks_per_group_, pass.n_blocks);

  // All choices first: a unit's w1 row travels from memory while the next block's logits are computed.
  float* const logits = pass.logits + group * n_tokens * block_size();
  for (std::size_t b = first; b < last; ++b) {
    controller_.pick(pass.h, b, logits, pass.units + b, pass.gains ? pass.gains + b : nullptr, pass.n_blocks);
    for (std::size_t t = 0; t < n_tokens; ++t) {
      std::uint32_t& unit = pass.units[t * pass.n_blocks + b];
      unit += static_cast<std::uint32_t>(b * block_size());
      prefetch_row(units_, 2 * unit);
    }
  }

  float* const activations = pass.activations + group * blocks_per_group_;
  std::uint32_t* const rows = pass.rows + group * blocks_per_group_;
  for (std::size_t t = 0; t < n_tokens; ++t) {
    const PreparedRows x = pass.x.slice(t, 1);
    std::size_t n = 0;
    for (std::size_t b = first; b < last; ++b) {
      const std::uint32_t w1_row = 2 * pass.units[t * pass.n_blocks + b];
      float a = 0.0F;
      dot_rows(*kernels_, units_.slice_rows(w1_row, 1), 0, 1, x, &a, 1);
      kernels_->relu(&a, 1);
      if (pass.gains) a *= pass.gains[t * pass.n_blocks + b];
      if (a == 0.0F) continue;  // its w2 row is not worth reading; a NaN is kept
      activations[n] = a;
      rows[n++] = w1_row + 1;
      prefetch_row(units_, w1_row + 1);
    }
    float* const sum = pass.sums + (group * n_tokens + t) * d_model();
    std::fill_n(sum, d_model(), 0.0F);
    axpy_rows(*kernels_, units_, activations, rows, n, 0, d_model(), sum,
              pass.scratch_a + group * blocks_per_group_, pass.scratch_rows + 2 * group * blocks_per_group_);
  }
}

}  // namespace terrace
