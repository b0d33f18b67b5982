// SPDX-License-Identifier: Apache-2.0
#include "sparse/sparse_ffn.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/error.h"
#include "sparse/unit_sums.h"
#include "sparse/weighted_rows.h"

namespace terrace {
namespace {

/// Tokens that go through the controller together: its weights are read once for all of them, and a pack is
/// full. Twice as many leave the sums of the groups no room in L2.
constexpr std::size_t kBatch = kPackRows;

/// Units among which the controller chooses before the chosen rows are asked for.
constexpr std::size_t kUnitsPerStep = 512;

/// Steps by which the controller's rows are asked for ahead.
constexpr std::size_t kStepsAhead = 2;

}  // namespace

/// One batch of tokens on its way through the layer. Pointers into the workspace; [..] are shapes.
struct SparseFfn::Pass {
  const PreparedRows& x;      ///< for the units
  const PreparedRows& h;      ///< controller.down x
  std::size_t n_blocks;       ///< in use
  const UnitSums& sums;       ///< over the blocks
  std::uint32_t* units;       ///< chosen units [T, n_blocks]
  float* gains;               ///< controller's softmax at the choice [T, n_blocks], or null
  float* activations;         ///< [T, n_blocks]
  float* logits;              ///< [run, T, blocks_per_group * N]
  std::uint32_t* rows;        ///< the units' rows of w1 [group, blocks_per_group]
  float* scratch_a;           ///< [group, blocks_per_group]
  const void** scratch_rows;  ///< [group, 2 * blocks_per_group]
};

SparseFfn::SparseFfn(const DenseKernels& kernels, const Controller& controller, const WeightView& units,
                     const float* bias, bool multiply_by_controller, bool rows_on_demand)
    : kernels_(&kernels),
      controller_(controller),
      units_(units),
      bias_(bias),
      multiply_by_controller_(multiply_by_controller),
      rows_on_demand_(rows_on_demand) {
  TERRACE_CHECK(
      units && units.rows == 2 * controller.n_units() && units.cols == controller.d_model(), kBadArgument,
      fmt::format("sparse feed-forward: expected units [2 * {}, {}] as the controller has it, found [{}, {}]",
                  controller.n_units(), controller.d_model(), units.rows, units.cols));
  blocks_per_group_ = UnitSums::group_of(n_blocks());
}

std::size_t SparseFfn::bytes_per_token(std::size_t width) const noexcept {
  return controller_.bytes_per_token(width) + units_.slice_rows(0, 2 * width / block_size()).bytes() +
         (bias_ ? d_model() * sizeof(float) : 0);
}

void SparseFfn::forward(Exec& exec, ConstRows x, Rows y, std::size_t width, std::uint32_t* active_units,
                        TaskRef beside) const {
  TERRACE_DCHECK(!beside || x.n == 1);
  TERRACE_DCHECK(width > 0 && width <= d_ff() && width % block_size() == 0);
  const std::size_t n_blocks = width / block_size();
  for (std::size_t t = 0; t < x.n; t += kBatch) {
    const std::size_t n = std::min(kBatch, x.n - t);
    forward_batch(exec, x.slice(t, n), y.slice(t, n), n_blocks,
                  active_units ? active_units + t * n_blocks : nullptr, beside);
  }
}

void SparseFfn::forward_batch(Exec& exec, ConstRows x, Rows y, std::size_t n_blocks,
                              std::uint32_t* active_units,  // NOLINT: written by way of the pass
                              TaskRef beside) const {
  const Workspace::Scope scope(exec.ws);
  Workspace& ws = exec.ws;
  const DType down_dtype = controller_.down().weight().dtype;
  const PreparedRows x_down(exec, *kernels_, down_dtype, x);
  const PreparedRows x_units =
      same_preparation(down_dtype, units_.dtype) ? x_down : PreparedRows(exec, *kernels_, units_.dtype, x);
  const std::size_t r = controller_.d_lowrank();
  const Rows h{ws.take<float>(x.n * r), x.n, r, r};
  beside ? controller_.down().forward_beside(exec, beside, x_down, h)
         : controller_.down().forward(exec, x_down, h);
  PreparedRows h_up = PreparedRows::unpacked(exec, *kernels_, controller_.up_dtype(), h);
  h_up.pack(exec, *kernels_, controller_.packs());

  const UnitSums sums(exec, *kernels_, n_blocks, blocks_per_group_, x.n, d_model());
  const std::size_t n_slots = sums.n_groups() * blocks_per_group_;
  const std::size_t n_picks = x.n * n_blocks;
  const std::size_t n_logits = x.n * blocks_per_group_ * block_size();
  const Pass pass{.x = x_units,
                  .h = h_up,
                  .n_blocks = n_blocks,
                  .sums = sums,
                  .units = active_units ? active_units : ws.take<std::uint32_t>(n_picks),
                  .gains = multiply_by_controller_ ? ws.take<float>(n_picks) : nullptr,
                  .activations = ws.take<float>(n_picks),
                  .logits = ws.take<float>(sums.n_runs() * n_logits),
                  .rows = ws.take<std::uint32_t>(n_slots),
                  .scratch_a = ws.take<float>(n_slots),
                  .scratch_rows = ws.take<const void*>(2 * n_slots)};
  using Step = UnitSums::Step;
  sums.run(
      exec, blocks_per_group_,
      [&](const Step& step) { choose(pass, step.group, pass.logits + step.run * n_logits); },
      [&](const Step& step) { activate(pass, step.group); },
      [&](const Step& step) { add_up(pass, step.group); });
  sums.finish(exec, bias_, y);
}

void SparseFfn::choose(const Pass& pass, std::size_t group, float* logits) const noexcept {
  const std::size_t begin = pass.sums.first(group), end = pass.sums.last(group);
  // The rows of a few blocks are asked for at a time: a burst of them would overrun the queues of the caches.
  const std::size_t step = std::max<std::size_t>(1, kUnitsPerStep / block_size());
  for (std::size_t first = begin; first < end; first += step) {
    const std::size_t last = std::min(first + step, end);
    controller_.prefetch(first + kStepsAhead * step, last + kStepsAhead * step);
    controller_.pick(pass.h, first, last, logits, pass.units, pass.gains, pass.n_blocks);
    for (std::size_t t = 0; t < pass.x.size(); ++t) {
      for (std::size_t b = first; b < last; ++b) {
        std::uint32_t& unit = pass.units[t * pass.n_blocks + b];
        unit += static_cast<std::uint32_t>(b * block_size());
        ask_for_row(units_, std::size_t{2} * unit, rows_on_demand_);
      }
    }
  }
}

void SparseFfn::activate(const Pass& pass, std::size_t group) const noexcept {
  const std::size_t first = pass.sums.first(group), last = pass.sums.last(group);
  const std::size_t n = last - first;
  std::uint32_t* const rows = pass.rows + first;
  for (std::size_t t = 0; t < pass.x.size(); ++t) {
    const std::size_t slot = t * pass.n_blocks + first;
    float* const a = pass.activations + slot;
    for (std::size_t i = 0; i < n; ++i) rows[i] = 2 * pass.units[slot + i];
    dot_gathered(*kernels_, units_, rows, n, pass.x.slice(t, 1), a, pass.scratch_a + first,
                 pass.scratch_rows + 2 * first);
    kernels_->relu(a, n);
    if (pass.gains) kernels_->multiply(a, pass.gains + slot, n);
    for (std::size_t i = 0; i < n; ++i) {
      if (a[i] != 0.0F) ask_for_row(units_, rows[i] + 1, rows_on_demand_);
    }
  }
}

void SparseFfn::add_up(const Pass& pass, std::size_t group) const noexcept {
  for (std::size_t t = 0; t < pass.x.size(); ++t) {
    float* const sum = pass.sums.of(group, t);
    std::fill_n(sum, d_model(), 0.0F);
    WeightedRows active(*kernels_, units_, 0, d_model(), sum);
    for (std::size_t b = pass.sums.first(group); b < pass.sums.last(group); ++b) {
      const std::size_t slot = t * pass.n_blocks + b;
      active.add(pass.activations[slot], std::size_t{2} * pass.units[slot] + 1);
    }
  }
}

}  // namespace terrace
