// SPDX-License-Identifier: Apache-2.0
#include "sparse/expert_ffn.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "engine/ceil_div.h"
#include "engine/error.h"
#include "engine/largest.h"
#include "sparse/expert_members.h"
#include "sparse/softmax_at.h"
#include "sparse/weighted_rows.h"

namespace terrace {
namespace {

/// Units that one token's pipeline takes at a time.
constexpr std::size_t kUnitsPerStep = 16;

}  // namespace

/// One token on its way through the layer. `n` units are in use; unit i is unit i % U of expert i / U of
/// those chosen.
struct ExpertFfn::Token {
  const PreparedRows& x;
  const ExpertChoice& choice;
  const UnitSums& sums;
  std::uint32_t* rows;  ///< [n]: where the unit's first row lies
  float* activations;   ///< [n]
  float* gates;         ///< [n], or null without gates
};

ExpertFfn::ExpertFfn(const DenseKernels& kernels, const ExpertWeights& weights, bool gated,
                     bool multiply_by_router)
    : kernels_(&kernels),
      router_(kernels, weights.router, weights.router_bias),
      weights_(weights),
      gated_(gated),
      multiply_by_router_(multiply_by_router) {
  const WeightView& units = weights.units;
  TERRACE_CHECK(weights.router && units && weights.router.cols == units.cols && units.rows > 0 &&
                    units.rows % (runs() * weights.router.rows) == 0,
                kBadArgument,
                fmt::format("feed-forward of experts: units [{}, {}] do not fit a router [{}, {}]",
                            units.rows, units.cols, weights.router.rows, weights.router.cols));
  TERRACE_CHECK(
      !weights.offsets || (weights.offsets.rows == n_experts() && weights.offsets.cols == units.cols),
      kBadArgument,
      fmt::format("feed-forward of experts: offsets [{}, {}] do not fit a router [{}, {}]",
                  weights.offsets.rows, weights.offsets.cols, weights.router.rows, weights.router.cols));
  n_units_ = units.rows / runs() / n_experts();
}

std::size_t ExpertFfn::bytes_per_token(std::size_t n_active) const noexcept {
  const std::size_t router = n_active < n_experts() || multiply_by_router_ ? router_.weight().bytes() : 0;
  return router + weights_.units.slice_rows(0, runs() * n_units_ * n_active).bytes() +
         (weights_.offsets ? weights_.offsets.slice_rows(0, n_active).bytes() : 0) +
         (weights_.bias ? d_model() * sizeof(float) : 0);
}

ExpertChoice ExpertFfn::choose(Exec& exec, ConstRows x, std::size_t n_active,
                               std::uint32_t* experts) const {  // NOLINT: written by way of the choice
  Workspace& ws = exec.ws;
  const std::size_t n = x.n * n_active;
  const ExpertChoice choice{n_active, experts ? experts : ws.take<std::uint32_t>(n),
                            multiply_by_router_ ? ws.take<float>(n) : nullptr};
  if (n_active == n_experts() && !multiply_by_router_) {
    for (std::size_t t = 0; t < x.n; ++t) {
      std::iota(choice.experts + t * n_active, choice.experts + (t + 1) * n_active, 0U);
    }
    return choice;
  }
  const Rows logits{ws.take<float>(x.n * n_experts()), x.n, n_experts(), n_experts()};
  auto* const scratch = ws.take<std::uint32_t>(n_experts());
  router_.forward(exec, x, logits);
  for (std::size_t t = 0; t < x.n; ++t) {
    std::uint32_t* const own = choice.experts + t * n_active;
    take_largest(logits.row(t), n_experts(), n_active, scratch, own);
    if (!choice.gains) continue;
    for (std::size_t k = 0; k < n_active; ++k) {
      const auto z = [row = logits.row(t)](std::size_t e) { return row[e]; };
      choice.gains[t * n_active + k] = softmax_at(z, n_experts(), own[k]);
    }
  }
  return choice;
}

void ExpertFfn::forward(Exec& exec, ConstRows x, Rows y, std::size_t n_active, std::uint32_t* experts) const {
  TERRACE_DCHECK(n_active > 0 && n_active <= n_experts());
  const Workspace::Scope scope(exec.ws);
  const ExpertChoice choice = choose(exec, x, n_active, experts);
  const PreparedRows prepared = PreparedRows::unpacked(exec, *kernels_, weights_.units.dtype, x);
  if (x.n == 1) return forward_token(exec, prepared, choice, y);
  forward_members(exec, prepared, choice, y);
}

void ExpertFfn::forward_token(Exec& exec, const PreparedRows& x, const ExpertChoice& choice, Rows y) const {
  Workspace& ws = exec.ws;
  const std::size_t n = choice.n_active * n_units_;
  const UnitSums sums(exec, *kernels_, n, UnitSums::group_of(n), 1, d_model());
  const Token token{.x = x,
                    .choice = choice,
                    .sums = sums,
                    .rows = ws.take<std::uint32_t>(n),
                    .activations = ws.take<float>(n),
                    .gates = gated_ ? ws.take<float>(n) : nullptr};
  using Step = UnitSums::Step;
  sums.run(
      exec, kUnitsPerStep, [&](const Step& step) { ask(token, step); },
      [&](const Step& step) { activate(token, step); }, [&](const Step& step) { add_up(token, step); });
  sums.finish(exec, weights_.bias, y);
}

void ExpertFfn::ask(const Token& token, const UnitSums::Step& step) const noexcept {
  if (weights_.offsets && step.first == token.sums.first(step.group)) {
    for (const std::uint32_t expert : beginning_in(token.sums, step.group, token.choice.experts)) {
      ask_for_row(weights_.offsets, expert, false);
    }
  }
  for (std::size_t i = step.first; i < step.last; ++i) {
    const std::size_t row = run_begin(token.choice.experts[i / n_units_], 0) + i % n_units_;
    token.rows[i] = static_cast<std::uint32_t>(row);
    for (std::size_t run = 0; run + 1 < runs(); ++run) {
      ask_for_row(weights_.units, row + run * n_units_, false);
    }
  }
}

void ExpertFfn::activate(const Token& token, const UnitSums::Step& step) const noexcept {
  const std::size_t n = step.size();
  std::uint32_t rows[kUnitsPerStep];
  float scratch_scales[kUnitsPerStep];
  const void* scratch_rows[2 * kUnitsPerStep];
  const auto dot_run = [&](std::size_t run, float* y) {
    for (std::size_t i = 0; i < n; ++i) {
      rows[i] = token.rows[step.first + i] + static_cast<std::uint32_t>(run * n_units_);
    }
    dot_gathered(*kernels_, weights_.units, rows, n, token.x, y, scratch_scales, scratch_rows);
  };
  float* const a = token.activations + step.first;
  float* const gate = gated_ ? token.gates + step.first : a;
  if (gated_) dot_run(0, gate);
  dot_run(runs() - 2, a);
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t rank = (step.first + i) / n_units_;
    if (weights_.unit_bias) {
      a[i] += weights_.unit_bias[token.choice.experts[rank] * n_units_ + (step.first + i) % n_units_];
    }
    if (token.choice.gains) a[i] *= token.choice.gains[rank];
  }
  kernels_->relu(gate, n);
  if (gated_) kernels_->multiply(a, gate, n);
  for (std::size_t i = 0; i < n; ++i) {
    if (a[i] != 0.0F)
      ask_for_row(weights_.units, token.rows[step.first + i] + (runs() - 1) * n_units_, false);
  }
}

void ExpertFfn::add_up(const Token& token, const UnitSums::Step& step) const noexcept {
  float* const sum = token.sums.of(step.group, 0);
  if (step.first == token.sums.first(step.group)) {
    begin_sum(beginning_in(token.sums, step.group, token.choice.experts), 0, d_model(), sum);
  }
  WeightedRows active(*kernels_, weights_.units, 0, d_model(), sum);
  for (std::size_t i = step.first; i < step.last; ++i) {
    active.add(token.activations[i], token.rows[i] + (runs() - 1) * n_units_);
  }
}

/// Those of a token's experts whose first unit lies in a group.
std::span<const std::uint32_t> ExpertFfn::beginning_in(const UnitSums& sums, std::size_t group,
                                                       const std::uint32_t* experts) const noexcept {
  const auto rank_from = [&](std::size_t unit) { return ceil_div(unit, n_units_); };
  return {experts + rank_from(sums.first(group)), experts + rank_from(sums.last(group))};
}

/// Columns [begin, end) of the sum of a group before its units.
void ExpertFfn::begin_sum(std::span<const std::uint32_t> beginning, std::size_t begin, std::size_t end,
                          float* sum) const noexcept {
  std::fill(sum + begin, sum + end, 0.0F);
  if (!weights_.offsets) return;
  WeightedRows offsets(*kernels_, weights_.offsets, begin, end, sum);
  for (const std::uint32_t expert : beginning) offsets.add(1.0F, expert);
}

void ExpertFfn::forward_members(Exec& exec, const PreparedRows& x, const ExpertChoice& choice, Rows y) const {
  const ExpertMembers members(exec.ws, choice, y.n, n_experts());
  auto* const h = exec.ws.take<float>(members.size() * n_units_);
  activate(exec, x, members, h);
  const std::size_t n = choice.n_active * n_units_;
  const UnitSums sums(exec, *kernels_, n, UnitSums::group_of(n), y.n, d_model());
  // One range of columns for each thread: every range looks at all activations again.
  const std::size_t n_ranges = d_model() / kQ4Columns + (d_model() % kQ4Columns != 0 ? 1 : 0);
  const std::uint32_t n_chunks = exec.one_chunk_each(n_ranges, members.size() * n_units_ * kQ4Columns);
  exec.team.run(n_chunks, [&](std::uint32_t chunk) {
    const std::size_t begin = n_ranges * chunk / n_chunks * kQ4Columns;
    const std::size_t end = std::min(d_model(), n_ranges * (chunk + 1) / n_chunks * kQ4Columns);
    for (std::size_t group = 0; group < sums.n_groups(); ++group) {
      for (std::size_t t = 0; t < y.n; ++t) {
        begin_sum(beginning_in(sums, group, choice.experts + t * choice.n_active), begin, end,
                  sums.of(group, t));
      }
    }
    for (std::size_t i = 0; i < members.n_used; ++i) {
      const std::size_t w2 = run_begin(members.used[i], runs() - 1);
      for (std::size_t k = members.first[i]; k < members.first[i + 1]; ++k) {
        // The expert's units are some of the token's, and may lie in several groups.
        const std::size_t offset = members.ranks[k] * n_units_;
        for (std::size_t u = 0; u < n_units_;) {
          const std::size_t group = (offset + u) / sums.units_per_group();
          const std::size_t last = std::min(n_units_, sums.last(group) - offset);
          WeightedRows active(*kernels_, weights_.units, begin, end, sums.of(group, members.tokens[k]));
          for (; u < last; ++u) active.add(h[k * n_units_ + u], w2 + u);
        }
      }
    }
    sums.finish_unmerged(weights_.bias, begin, end, y);
  });
}

/// h [members, U]: the activations of every member.
void ExpertFfn::activate(Exec& exec, const PreparedRows& x, const ExpertMembers& members, float* h) const {
  Workspace& ws = exec.ws;
  const std::size_t n = members.size();
  const PreparedRows rows = x.gathered(exec, {members.tokens, n});
  const Packs packs = packs_for(*kernels_, weights_.units.dtype);
  std::size_t most = 0;  // tokens of an expert
  for (std::size_t i = 0; i < members.n_used; ++i) most = std::max(most, members.count(i));
  const std::size_t pack_bytes = rows.slice(0, most).packs_bytes(packs);
  auto* const g = gated_ ? ws.take<float>(n * n_units_) : nullptr;

  const std::size_t n_items = members.n_used * n_units_;
  const std::size_t work_per_item =
      (runs() - 1) *
      dot_work(weights_.units.dtype, d_model(), n / std::max<std::size_t>(1, members.n_used), packs);
  const std::uint32_t n_chunks = exec.chunks_of(n_items, work_per_item);
  auto* const scratch = ws.take<std::byte>(n_chunks * pack_bytes);
  const auto chunk_begin = [&](std::size_t chunk) {
    return chunk == n_chunks ? n_items : n_items * chunk / n_chunks / kPackRows * kPackRows;
  };
  exec.team.run(n_chunks, [&](std::uint32_t chunk) {
    const std::size_t last = chunk_begin(std::size_t{chunk} + 1);
    for (std::size_t item = chunk_begin(chunk); item < last;) {
      const std::size_t i = item / n_units_;
      const std::size_t begin = item % n_units_;
      const std::size_t end = std::min(n_units_, begin + (last - item));
      const std::size_t first = members.first[i];
      const PreparedRows own =
          rows.slice(first, members.count(i)).packed_into(*kernels_, packs, scratch + chunk * pack_bytes);
      activate_units(own, members.used[i], begin, end, members.gains ? members.gains + first : nullptr,
                     g ? g + first * n_units_ : nullptr, h + first * n_units_);
      item += end - begin;
    }
  });
}

/// Units [begin, end) of one expert for the rows of x; h and g are [x.size(), U], g is scratch.
void ExpertFfn::activate_units(const PreparedRows& x, std::size_t expert, std::size_t begin, std::size_t end,
                               const float* gains, float* g, float* h) const noexcept {
  const std::size_t n = end - begin;
  const auto run = [&](std::size_t i) { return weights_.units.slice_rows(run_begin(expert, i), n_units_); };
  if (gated_) dot_rows(*kernels_, run(0), begin, end, x, g, n_units_);
  dot_rows(*kernels_, run(runs() - 2), begin, end, x, h, n_units_);
  const float* const unit_bias = weights_.unit_bias;
  for (std::size_t t = 0; t < x.size(); ++t) {
    float* const a = h + t * n_units_ + begin;
    if (unit_bias) kernels_->add(a, unit_bias + expert * n_units_ + begin, n);
    if (gains) {
      for (std::size_t i = 0; i < n; ++i) a[i] *= gains[t];
    }
    float* const gate = gated_ ? g + t * n_units_ + begin : a;
    kernels_->relu(gate, n);
    if (gated_) kernels_->multiply(a, gate, n);
  }
}

}  // namespace terrace
