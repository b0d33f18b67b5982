// SPDX-License-Identifier: Apache-2.0
#include "models/layer_builder.h"

#include "engine/error.h"
#include "sparse/module_dense.h"

namespace terrace {

Linear LayerBuilder::linear(const std::string& name, std::size_t d_in, std::size_t d_out) const {
  const WeightView weight = binder.weight(name + ".weight", {d_out, d_in});
  return {kernels, weight, binder.f32_if_present(name + ".bias", {d_out})};
}

FactoredDense LayerBuilder::factored(const std::string& name, std::size_t d_in, std::size_t d_out,
                                     std::size_t n_modules) const {
  const WeightView gate = binder.weight(name + ".gate", {n_modules, d_in});
  const WeightView proj = binder.weight(name + ".proj", {d_out / n_modules, d_in});
  return {kernels, gate, proj, binder.f32_if_present(name + ".bias", {d_out})};
}

LocallyConvDense LayerBuilder::conv(const std::string& name, std::size_t d_in, std::size_t d_out,
                                    std::size_t n_modules, std::size_t kernel_size,
                                    std::size_t n_steps) const {
  if (n_modules == 1) kernel_size = n_steps = 1;
  const std::size_t units = d_out / n_modules;
  const std::size_t columns = kernel_size * n_steps * (d_in / n_modules);
  const WeightView weight = binder.weight(name + ".weight", {units, columns});
  return {kernels, weight, binder.f32_if_present(name + ".bias", {units}), n_modules, kernel_size, n_steps};
}

Projection LayerBuilder::projection(const std::string& name, const ProjectionConfig& p, std::size_t d_in,
                                    std::size_t d_out) const {
  using Kind = ProjectionConfig::Kind;
  const std::size_t n_modules = p.n_modules;
  switch (p.kind) {
    case Kind::kDense:
      return Projection(linear(name, d_in, d_out));
    case Kind::kMult:
      return Projection(factored(name, d_in, d_out, n_modules));
    case Kind::kConv:
      return Projection(conv(name, d_in, d_out, n_modules, p.kernel_size, 1));
    case Kind::kLowRank:
      return Projection(
          LowRankDense(linear(name + ".down", d_in, p.rank), linear(name + ".up", p.rank, d_out)));
    case Kind::kMultModular: {
      const std::size_t width = d_out / n_modules;
      const WeightView gate = binder.weight(name + ".gate", {n_modules, d_in});
      const WeightView shared = binder.weight(name + ".shared", {width, d_in});
      const WeightView modules = binder.weight(name + ".modules", {n_modules, width, width});
      const float* bias = binder.f32_if_present(name + ".bias", {d_out});
      return Projection(MultModularDense(kernels, gate, shared, modules, bias));
    }
    case Kind::kLocal: {
      if (n_modules == 1) return Projection(linear(name, d_in, d_out));
      const std::size_t units = d_out / n_modules;
      const std::size_t columns = p.kernel_size * (d_in / n_modules);
      const WeightView weight = binder.weight(name + ".weight", {n_modules, units, columns});
      const float* bias = binder.f32_if_present(name + ".bias", {n_modules, units});
      return Projection(LocallyConnectedDense(kernels, weight, bias, n_modules, p.kernel_size));
    }
  }
  throw Error(ErrorCode::kInternal, "projection of unknown kind");
}

std::shared_ptr<const Rotary> LayerBuilder::rotary(std::size_t d_head, const RotaryConfig& rotary) const {
  auto& table = rotary_tables[{d_head, rotary}];
  // In a Terraformer's decoder the context follows the document.
  const std::size_t n_positions =
      std::size_t{config.max_context} * (config.family == Family::kTerraformer ? 2 : 1);
  if (!table) {
    table =
        std::make_shared<const Rotary>(d_head, n_positions, rotary.base, rotary.interleaved, rotary.scaling);
  }
  return table;
}

Norm LayerBuilder::norm(const std::string& name, std::size_t d, bool center) const {
  const float* scale = binder.f32(name + ".scale", {d});
  const float* bias = binder.f32_if_present(name + ".bias", {d});
  const bool centered = center && config.norm.kind == NormConfig::Kind::kLayerNorm;
  return {kernels, d, scale, centered ? bias : nullptr, centered, config.norm.epsilon};
}

}  // namespace terrace
