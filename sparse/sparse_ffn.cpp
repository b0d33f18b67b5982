// SPDX-License-Identifier: Apache-2.0
#include "sparse/sparse_ffn.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/error.h"
#include "engine/paging.h"
#include "engine/prefetch.h"

namespace terrace {
namespace {

/// Tokens that go through the controller together: its weights are read once for all of them, and a pack is
/// full. Twice as many leave the sums of the groups no room in L2.
constexpr std::size_t kBatch = kPackRows;

/// A group has an accumulator of d floats per token, to be added up at the end: at least this many blocks for
/// one, and ...
constexpr std::size_t kMinBlocksPerGroup = 8;
/// ... not more groups than this: their sums travel from core to core.
constexpr std::size_t kWantedGroups = 8;

/// Units among which the controller chooses before the chosen rows are asked for.
constexpr std::size_t kUnitsPerStep = 512;

/// Steps by which the controller's rows are asked for ahead.
constexpr std::size_t kStepsAhead = 2;

/// Groups between the stages of the pipeline.
constexpr std::size_t kLag = 2;

/// Unit rows are fetched ahead up to here; the hardware prefetcher follows on from there.
constexpr std::size_t kPrefetchBytes = 4096;

/// Calls fn(group, partner, end) for every sum of the tree over n groups, leaves first: that of `partner` is
/// added to that of `group`, which then holds the groups up to `end`.
template <class F>
void for_merges(std::size_t n, F&& fn) {
  for (std::size_t distance = 1; distance < n; distance *= 2) {
    for (std::size_t group = 0; group + distance < n; group += 2 * distance) {
      fn(group, group + distance, std::min(group + 2 * distance, n));
    }
  }
}

/// Into the L2 cache: a step's rows are more lines than the first-level cache can wait for at once, and what
/// does not fit holds up the controller's own loads (Zen 4: 45 ns per row of 1 KiB against 100).
void prefetch_row(const WeightView& w, std::size_t row, bool from_disk) noexcept {
  const std::byte* const data = w.row(row);
  if (from_disk) return page_in(data, row_bytes(w.dtype, w.cols));
  prefetch_bytes(data, std::min(row_bytes(w.dtype, w.cols), kPrefetchBytes));
  if (w.scale) prefetch_bytes(w.row_scale(row), 1);
}

}  // namespace

/// One batch of tokens on its way through the layer. Pointers into the workspace; [..] are shapes.
struct SparseFfn::Pass {
  const PreparedRows& x;      ///< for the units
  const PreparedRows& h;      ///< controller.down x
  std::size_t n_blocks;       ///< in use
  std::size_t n_groups;       ///< of them
  std::size_t n_runs;         ///< of groups, one after the other
  std::uint32_t* units;       ///< chosen units [T, n_blocks]
  float* gains;               ///< controller's softmax at the choice [T, n_blocks], or null
  float* activations;         ///< [T, n_blocks]
  float* logits;              ///< [group, T, blocks_per_group * N]
  float* nonzero;             ///< activations that are not 0 [group, blocks_per_group] ...
  std::uint32_t* rows;        ///< ... and their rows of w2; before that, the units' rows of w1
  float* scratch_a;           ///< [group, blocks_per_group]
  const void** scratch_rows;  ///< [group, 2 * blocks_per_group]
  float* sums;                ///< [group, T, d]

  std::size_t run_begin(std::size_t run) const noexcept { return n_groups * run / n_runs; }
  /// Whether one run has all groups of [begin, end): it merges them itself.
  bool in_one_run(std::size_t begin, std::size_t end) const noexcept {
    const std::size_t run = ((begin + 1) * n_runs - 1) / n_groups;
    return end <= run_begin(run + 1);
  }
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
                              std::uint32_t* active_units) const {  // NOLINT: written by way of the pass
  const Workspace::Scope scope(exec.ws);
  Workspace& ws = exec.ws;
  const DType down_dtype = controller_.down().weight().dtype;
  const PreparedRows x_down(exec, *kernels_, down_dtype, x);
  const PreparedRows x_units =
      same_preparation(down_dtype, units_.dtype) ? x_down : PreparedRows(exec, *kernels_, units_.dtype, x);
  const std::size_t r = controller_.d_lowrank();
  const Rows h{ws.take<float>(x.n * r), x.n, r, r};
  controller_.down().forward(exec, x_down, h);
  PreparedRows h_up = PreparedRows::unpacked(exec, *kernels_, controller_.up_dtype(), h);
  h_up.pack(exec, *kernels_, controller_.packs());

  const std::size_t n_groups = (n_blocks + blocks_per_group_ - 1) / blocks_per_group_;
  const std::size_t n_slots = n_groups * blocks_per_group_;
  const std::size_t n_picks = x.n * n_blocks;
  const Pass pass{.x = x_units,
                  .h = h_up,
                  .n_blocks = n_blocks,
                  .n_groups = n_groups,
                  // As few and as long as there are threads: every run has to fill its pipeline anew.
                  .n_runs = std::min<std::size_t>(n_groups, exec.team.size()),
                  .units = active_units ? active_units : ws.take<std::uint32_t>(n_picks),
                  .gains = multiply_by_controller_ ? ws.take<float>(n_picks) : nullptr,
                  .activations = ws.take<float>(n_picks),
                  .logits = ws.take<float>(n_slots * x.n * block_size()),
                  .nonzero = ws.take<float>(n_slots),
                  .rows = ws.take<std::uint32_t>(n_slots),
                  .scratch_a = ws.take<float>(n_slots),
                  .scratch_rows = ws.take<const void*>(2 * n_slots),
                  .sums = ws.take<float>(n_groups * x.n * d_model())};
  exec.team.run(static_cast<std::uint32_t>(pass.n_runs), [&](std::uint32_t run) { run_groups(pass, run); });

  exec.for_range(d_model(), kQ4Columns, pass.n_runs * x.n * sizeof(float),
                 [&](std::size_t begin, std::size_t end) {
                   for_merges(n_groups, [&](std::size_t group, std::size_t partner, std::size_t last) {
                     if (!pass.in_one_run(group, last)) merge(pass, group, partner, begin, end);
                   });
                   for (std::size_t t = 0; t < x.n; ++t) {
                     float* const out = y.row(t) + begin;
                     std::copy_n(pass.sums + t * d_model() + begin, end - begin, out);
                     if (bias_) kernels_->add(out, bias_ + begin, end - begin);
                   }
                 });
}

/// Columns [begin, end) of one sum of the tree.
void SparseFfn::merge(const Pass& pass, std::size_t group, std::size_t partner, std::size_t begin,
                      std::size_t end) const noexcept {
  const std::size_t n_tokens = pass.x.size();
  for (std::size_t t = 0; t < n_tokens; ++t) {
    kernels_->add(pass.sums + (group * n_tokens + t) * d_model() + begin,
                  pass.sums + (partner * n_tokens + t) * d_model() + begin, end - begin);
  }
}

std::pair<std::size_t, std::size_t> SparseFfn::blocks_of(const Pass& pass, std::size_t group) const noexcept {
  return {group * blocks_per_group_, std::min((group + 1) * blocks_per_group_, pass.n_blocks)};
}

void SparseFfn::run_groups(const Pass& pass, std::size_t run) const noexcept {
  const std::size_t begin = pass.run_begin(run), end = pass.run_begin(run + 1);
  // A pipeline of three stages, each kLag groups behind the one before: what a stage asks memory for has the
  // time of as many groups to arrive.
  float* const logits = pass.logits + begin * pass.x.size() * blocks_per_group_ * block_size();
  for (std::size_t group = begin; group < end + 2 * kLag; ++group) {
    if (group < end) choose(pass, group, logits);
    if (group >= begin + kLag && group - kLag < end) activate(pass, group - kLag);
    if (group >= begin + 2 * kLag) add_up(pass, group - 2 * kLag);
  }
  for_merges(pass.n_groups, [&](std::size_t group, std::size_t partner, std::size_t last) {
    if (group >= begin && last <= end) merge(pass, group, partner, 0, d_model());
  });
}

void SparseFfn::choose(const Pass& pass, std::size_t group, float* logits) const noexcept {
  const auto [begin, end] = blocks_of(pass, group);
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
        prefetch_row(units_, std::size_t{2} * unit, rows_on_demand_);
      }
    }
  }
}

void SparseFfn::activate(const Pass& pass, std::size_t group) const noexcept {
  const auto [first, last] = blocks_of(pass, group);
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
      if (a[i] != 0.0F) prefetch_row(units_, rows[i] + 1, rows_on_demand_);
    }
  }
}

void SparseFfn::add_up(const Pass& pass, std::size_t group) const noexcept {
  const std::size_t n_tokens = pass.x.size();
  const auto [offset, last] = blocks_of(pass, group);
  float* const nonzero = pass.nonzero + offset;
  std::uint32_t* const rows = pass.rows + offset;
  for (std::size_t t = 0; t < n_tokens; ++t) {
    std::size_t n = 0;
    for (std::size_t b = offset; b < last; ++b) {
      const std::size_t slot = t * pass.n_blocks + b;
      if (pass.activations[slot] == 0.0F) continue;  // its w2 row is not worth reading; a NaN is kept
      nonzero[n] = pass.activations[slot];
      rows[n++] = 2 * pass.units[slot] + 1;
    }
    float* const sum = pass.sums + (group * n_tokens + t) * d_model();
    std::fill_n(sum, d_model(), 0.0F);
    axpy_rows(*kernels_, units_, nonzero, rows, n, 0, d_model(), sum, pass.scratch_a + offset,
              pass.scratch_rows + 2 * offset);
  }
}

}  // namespace terrace
