// SPDX-License-Identifier: Apache-2.0
#include "models/plan_builder.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace terrace {
namespace {

std::uint64_t product(const PlanBuilder::Shape& shape) noexcept {
  return std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies<>());
}

}  // namespace

float std_of_row(float gain, std::uint64_t n_inputs) noexcept {
  return gain / std::sqrt(static_cast<float>(n_inputs));
}

PlanBuilder::PlanBuilder(const ModelConfig& config) : config_(config) {}

void PlanBuilder::add(std::string name, Shape shape, LayerKind kind, bool is_weight, std::uint64_t touched,
                      std::uint64_t uses, InitialValue initial) {
  if (!context_.per_token) touched = 0;
  // Whole rows, and at least one of what some token reads.
  if (context_.share < 1 && touched) {
    const std::uint64_t columns = shape.empty() ? 1 : shape.back();
    const std::uint64_t rows = touched / columns;
    const std::int64_t of_some_tokens = std::llround(static_cast<double>(rows) * context_.share);
    touched = columns * static_cast<std::uint64_t>(std::max<std::int64_t>(1, of_some_tokens));
  }
  plan_.push_back({std::move(name), std::move(shape), kind, is_weight, touched, uses, std::move(initial),
                   context_.block, context_.by_width});
}

void PlanBuilder::weight(const std::string& name, Shape shape, LayerKind kind, float gain,
                         std::uint64_t uses) {
  const std::uint64_t elements = product(shape);
  const float std = std_of_row(gain, shape.back());
  add(name, std::move(shape), kind, /*is_weight=*/true, elements, uses, {0, {std}});
}

void PlanBuilder::f32(const std::string& name, Shape shape, LayerKind kind, InitialValue initial,
                      std::uint64_t uses) {
  const std::uint64_t elements = product(shape);
  add(name, std::move(shape), kind, /*is_weight=*/false, elements, uses, std::move(initial));
}

void PlanBuilder::gate(const std::string& name, std::uint64_t s, std::uint64_t in, LayerKind kind) {
  add(name, {s, in}, kind, /*is_weight=*/true, s * in, 1, {0, {kUnitStd}});
}

void PlanBuilder::bias(const std::string& name, Shape shape, LayerKind kind) {
  f32(name, std::move(shape), kind, {0, {kBiasStd}});
}

void PlanBuilder::table(const std::string& name, std::uint64_t rows, std::uint64_t d) {
  add(name, {rows, d}, LayerKind::kEmbedding, /*is_weight=*/true, d, 0, {0, {kUnitStd}});
}

void PlanBuilder::norm(const std::string& name, std::uint64_t d) {
  f32(name + ".scale", {d}, LayerKind::kNorm, {1, {0}});
  if (!is_rms()) bias(name + ".bias", {d}, LayerKind::kNorm);
}

void PlanBuilder::dense(const std::string& name, std::uint64_t in, std::uint64_t out, LayerKind kind,
                        float gain, Bias with_bias) {
  weight(name + ".weight", {out, in}, kind, gain);
  if (with_bias == Bias::kAlways || (with_bias == Bias::kUnlessRms && !is_rms()))
    bias(name + ".bias", {out}, kind);
}

void PlanBuilder::mult(const std::string& name, std::uint64_t in, std::uint64_t out, std::uint64_t s,
                       LayerKind kind, float gain) {
  gate(name + ".gate", s, in, kind);
  weight(name + ".proj", {out / s, in}, kind, gain, s);
  bias(name + ".bias", {out}, kind);
}

void PlanBuilder::conv(const std::string& name, std::uint64_t in, std::uint64_t out, std::uint64_t s,
                       std::uint64_t modules_seen, std::uint64_t steps, LayerKind kind, float gain) {
  if (s == 1) modules_seen = steps = 1;
  weight(name + ".weight", {out / s, modules_seen * steps * (in / s)}, kind, gain, s);
  bias(name + ".bias", {out / s}, kind);
}

void PlanBuilder::projection(const std::string& name, const ProjectionConfig& p, std::uint64_t in,
                             std::uint64_t out, LayerKind kind, float gain) {
  const std::uint64_t s = p.n_modules;
  switch (p.kind) {
    case ProjectionConfig::Kind::kDense:
      return dense(name, in, out, kind, gain);
    case ProjectionConfig::Kind::kMult:
      return mult(name, in, out, s, kind, gain);
    case ProjectionConfig::Kind::kConv:
      return conv(name, in, out, s, p.kernel_size, 1, kind, gain);
    case ProjectionConfig::Kind::kLowRank:
      dense(name + ".down", in, p.rank, kind, 1);
      return dense(name + ".up", p.rank, out, kind, gain);
    case ProjectionConfig::Kind::kMultModular:
      gate(name + ".gate", s, in, kind);
      weight(name + ".shared", {out / s, in}, kind, 1, s);
      weight(name + ".modules", {s, out / s, out / s}, kind, gain);
      return bias(name + ".bias", {out}, kind);
    case ProjectionConfig::Kind::kLocal:
      if (s == 1) return dense(name, in, out, kind, gain);
      weight(name + ".weight", {s, out / s, p.kernel_size * (in / s)}, kind, gain);
      return bias(name + ".bias", {s, out / s}, kind);
  }
}

}  // namespace terrace
