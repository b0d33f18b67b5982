// SPDX-License-Identifier: Apache-2.0
#include "models/feed_forward_layer.h"

#include <fmt/format.h>

#include <vector>

#include "engine/tile_scope.h"
#include "models/widths.h"

namespace terrace {

FeedForwardLayer::Map FeedForwardLayer::build_map(const LayerBuilder& build, const std::string& name,
                                                  const FeedForwardConfig& config, std::size_t d_model,
                                                  std::size_t d_ff) {
  using Kind = FeedForwardConfig::Kind;
  WeightBinder& binder = build.binder;
  switch (config.kind) {
    case Kind::kDense: {
      const Linear w1 = build.linear(name + ".w1", d_model, d_ff);
      const Linear w2 = build.linear(name + ".w2", d_ff, d_model);
      const Linear gate = config.gated ? build.linear(name + ".gate", d_model, d_ff) : Linear();
      return FeedForward(w1, w2, gate, config.activation);
    }
    case Kind::kSparse: {
      const WeightView down = binder.weight(name + ".controller.down", {config.d_lowrank, d_model});
      const WeightView up = binder.weight(name + ".controller.up", {d_ff, config.d_lowrank});
      const float* controller_bias = binder.f32(name + ".controller.bias", {d_ff});
      const Controller controller(build.kernels, down, up, controller_bias, config.block_size);
      const WeightView units = binder.gathered_weight(name + ".units", {d_ff, 2, d_model});
      const float* bias = binder.f32(name + ".bias", {d_model});
      return SparseFfn(build.kernels, controller, units, bias, config.multiply_by_controller,
                       binder.rows_on_demand());
    }
    case Kind::kBlock:
    case Kind::kSwitch:
    case Kind::kExperts:
      break;
  }
  ExpertWeights weights;
  weights.router = binder.weight(name + ".router", {config.n_experts, d_model});
  // Not gathered_weight: the units of an expert are long runs, which read-ahead suits.
  const std::size_t runs = config.gated ? 3 : 2;
  weights.units = binder.weight(name + ".units", {config.n_experts, runs, d_ff / config.n_experts, d_model});
  if (config.kind == Kind::kExperts) {
    weights.router_bias = binder.f32(name + ".router_bias", {config.n_experts});
    weights.unit_bias = binder.f32_if_present(name + ".unit_bias", {d_ff});
    if (binder.has(name + ".offsets")) {
      weights.offsets = binder.weight(name + ".offsets", {config.n_experts, d_model});
    }
  }
  weights.bias = binder.f32(name + ".bias", {d_model});
  return ExpertFfn(build.kernels, weights, config.gated, config.kind == Kind::kSwitch);
}

FeedForwardLayer::FeedForwardLayer(const LayerBuilder& build, const std::string& name,
                                   const FeedForwardConfig& config, std::size_t d_model, std::size_t d_ff,
                                   bool center, bool has_norm)
    : d_model_(d_model),
      d_ff_(d_ff),
      any_width_(any_width(config)),
      default_width_(terrace::default_width(config, static_cast<std::uint32_t>(d_ff))),
      map_(build_map(build, name, config, d_model, d_ff)) {
  if (has_norm) norm_ = build.norm(name + ".norm", d_model, center);
  if (config.sru.n_layers == 0) return;
  const std::size_t width = config.sru.width;
  const std::string sru = name + ".sru";
  const Norm norm = build.norm(sru + ".norm", d_model, center);
  const Linear in = build.linear(sru + ".in", d_model, width);
  std::vector<SruCell> cells;
  for (std::size_t k = 0; k < config.sru.n_layers; ++k) {
    cells.emplace_back(build.linear(fmt::format("{}.cells.{}", sru, k), width, 3 * width));
  }
  const Linear out = build.linear(sru + ".out", width, d_model);
  sru_.emplace(norm, in, std::move(cells), out, build.state.recurrent);
}

void FeedForwardLayer::forward(Exec& exec, ConstRows x, const RecurrentBlock& recurrent, std::size_t width,
                               Rows y) const {
  const ProfileZone zone(exec.profile, Zone::kFeedForward);
  const Workspace::Scope scope(exec.ws);
  ConstRows h = x;
  if (norm_) {
    const Rows normed{exec.ws.take<float>(x.n * x.width), x.n, x.width, x.width};
    norm_.forward(exec, x, normed);
    h = normed;
  }
  if (exec.observer) {
    TileScope::release();
    exec.observer->feed_forward_input(this, h);
  }
  if (const auto* dense = std::get_if<FeedForward>(&map_)) {
    dense->forward(exec, h, y, width);
  } else if (const auto* sparse = std::get_if<SparseFfn>(&map_)) {
    const std::size_t down_bytes = sparse->controller().down().weight().bytes();
    if (sru_ && x.n == 1 && sru_beside_controller(sru_->bytes_per_token(), down_bytes)) {
      return forward_beside(exec, *sparse, h, x, recurrent, width, y);
    }
    sparse->forward(exec, h, y, width);
  } else {
    const auto& experts = std::get<ExpertFfn>(map_);
    experts.forward(exec, h, y, any_width_ ? width / experts.n_units() : 1);
  }
  if (sru_) sru_->forward_add(exec, x, recurrent, y);
}

void FeedForwardLayer::forward_beside(Exec& exec, const SparseFfn& sparse, ConstRows h, ConstRows x,
                                      const RecurrentBlock& recurrent, std::size_t width, Rows y) const {
  const Rows branch{exec.ws.take<float>(x.width), 1, x.width, x.width};
  ThreadTeam nobody_else(1);
  Exec alone{nobody_else, exec.ws, exec.profile, exec.observer};
  const auto run_sru = [&] { sru_->forward(alone, x, recurrent, branch); };
  sparse.forward(exec, h, y, width, nullptr, run_sru);
  sparse.controller().down().kernels().add(y.row(0), branch.row(0), x.width);
}

}  // namespace terrace
