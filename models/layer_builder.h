// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "attention/rotary.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/linear.h"
#include "engine/norm.h"
#include "models/config.h"
#include "models/session_state.h"
#include "models/weight_binder.h"
#include "sparse/factored_dense.h"
#include "sparse/module_conv.h"
#include "sparse/projection.h"

namespace terrace {

/// Rotary tables made so far, by head size.
using RotaryTables = std::map<std::pair<std::size_t, RotaryConfig>, std::shared_ptr<const Rotary>>;

/// What layers are built from: tensors, kernels, sizes, and the places where they reserve their state.
struct LayerBuilder {
  WeightBinder& binder;
  const DenseKernels& kernels;
  Isa isa;
  const ModelConfig& config;
  StateLayout& state;
  RotaryTables& rotary_tables;

  /// `<name>.weight` [d_out, d_in] with `<name>.bias` [d_out] where the file has one.
  Linear linear(const std::string& name, std::size_t d_in, std::size_t d_out) const;

  /// `<name>.gate` [S, d_in], `.proj` [d_out / S, d_in], `.bias` [d_out].
  FactoredDense factored(const std::string& name, std::size_t d_in, std::size_t d_out,
                         std::size_t n_modules) const;

  /// `<name>.weight` [units, Km * Kl * C], `.bias` [units]: d_in = S * C channels to S * units. With one
  /// module, a dense layer without taps.
  LocallyConvDense conv(const std::string& name, std::size_t d_in, std::size_t d_out, std::size_t n_modules,
                        std::size_t kernel_size, std::size_t n_steps) const;

  Projection projection(const std::string& name, const ProjectionConfig& p, std::size_t d_in,
                        std::size_t d_out) const;

  /// Rotary tables, shared by all layers that need the same ones.
  std::shared_ptr<const Rotary> rotary(std::size_t d_head, const RotaryConfig& rotary) const;

  /// `<name>.scale`, `<name>.bias` [d]; `center` false also for rms_norm.
  Norm norm(const std::string& name, std::size_t d, bool center) const;
};

}  // namespace terrace
