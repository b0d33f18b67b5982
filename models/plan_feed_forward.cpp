// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <utility>

#include "models/plan_layers.h"

namespace terrace {
namespace {

using Bias = PlanBuilder::Bias;

constexpr LayerKind kKind = LayerKind::kFeedForward;

/// Adds what `add` does as tensors of which a width takes a prefix.
template <class Add>
void by_width(PlanBuilder& plan, Add add) {
  plan.context().by_width = true;
  add();
  plan.context().by_width = false;
}

/// Units [F, 2, d]: the w1 row and the w2 row of each, of which `active` units are read.
void units(PlanBuilder& plan, const std::string& name, std::uint64_t d, std::uint64_t d_ff,
           std::uint64_t active, float gain) {
  const InitialValue initial{0, {std_of_row(kReluGain, d), std_of_row(gain, active)}};
  plan.add(name + ".units", {d_ff, 2, d}, kKind, /*is_weight=*/true, 2 * active * d, 1, initial);
}

/// Units [E, M, U, d] of experts: their gates (M = 3), w1 rows, w2 rows, each kind one run.
void experts(PlanBuilder& plan, const std::string& name, const FeedForwardConfig& f, std::uint64_t d,
             std::uint64_t d_ff, std::uint64_t n_active, float gain) {
  const std::uint64_t n_units = d_ff / f.n_experts;
  const std::uint64_t active = n_active * n_units;
  InitialValue initial{0, {std_of_row(kReluGain, d), std_of_row(gain, active)}, n_units};
  if (f.gated) initial.std.insert(initial.std.begin() + 1, std_of_row(1, d));
  const std::uint64_t runs = initial.std.size();
  plan.add(name + ".units", {f.n_experts, runs, n_units, d}, kKind, /*is_weight=*/true, runs * active * d, 1,
           std::move(initial));
}

void sru(PlanBuilder& plan, const std::string& name, const SruConfig& s, std::uint64_t d, float gain) {
  plan.norm(name + ".norm", d);
  plan.dense(name + ".in", d, s.width, LayerKind::kSru, 1, Bias::kAlways);
  for (std::uint32_t k = 0; k < s.n_layers; ++k) {
    plan.dense(fmt::format("{}.cells.{}", name, k), s.width, std::uint64_t{3} * s.width, LayerKind::kSru, 1,
               Bias::kAlways);
  }
  plan.dense(name + ".out", s.width, d, LayerKind::kSru, gain, Bias::kAlways);
}

}  // namespace

void plan_feed_forward(PlanBuilder& plan, const std::string& name, const FeedForwardConfig& f,
                       std::uint64_t d, std::uint64_t d_ff, float gain) {
  using Kind = FeedForwardConfig::Kind;
  switch (f.kind) {
    case Kind::kDense:
      by_width(plan, [&] {
        plan.dense(name + ".w1", d, d_ff, kKind, kReluGain);
        if (f.gated) plan.dense(name + ".gate", d, d_ff, kKind, 1);
        plan.weight(name + ".w2.weight", {d, d_ff}, kKind, gain);
      });
      if (!plan.is_rms()) plan.bias(name + ".w2.bias", {d}, kKind);
      break;
    case Kind::kSparse:
      plan.weight(name + ".controller.down", {f.d_lowrank, d}, LayerKind::kController, 1);
      by_width(plan, [&] {
        plan.weight(name + ".controller.up", {d_ff, f.d_lowrank}, LayerKind::kController, 1);
        plan.bias(name + ".controller.bias", {d_ff}, LayerKind::kController);
        units(plan, name, d, d_ff, d_ff / f.block_size, gain);
      });
      plan.bias(name + ".bias", {d}, kKind);
      break;
    case Kind::kBlock:
    case Kind::kSwitch:
      plan.weight(name + ".router", {f.n_experts, d}, LayerKind::kController, 1);
      experts(plan, name, f, d, d_ff, 1, gain);
      plan.bias(name + ".bias", {d}, kKind);
      break;
    case Kind::kExperts:
      plan.weight(name + ".router", {f.n_experts, d}, LayerKind::kController, 1);
      plan.bias(name + ".router_bias", {f.n_experts}, LayerKind::kController);
      by_width(plan, [&] {
        experts(plan, name, f, d, d_ff, f.n_active, gain);
        if (!plan.is_rms()) {
          plan.add(name + ".unit_bias", {d_ff}, kKind, /*is_weight=*/false,
                   default_width(f, static_cast<std::uint32_t>(d_ff)), 0, {0, {kBiasStd}});
        }
        plan.add(name + ".offsets", {f.n_experts, d}, kKind, /*is_weight=*/true, f.n_active * d, 1,
                 {0, {kBiasStd}});
      });
      plan.bias(name + ".bias", {d}, kKind);
      break;
  }
  if (f.sru.n_layers > 0) sru(plan, name + ".sru", f.sru, d, gain);
}

}  // namespace terrace
