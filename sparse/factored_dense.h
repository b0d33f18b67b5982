// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "engine/exec.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/largest.h"
#include "engine/prefetch.h"
#include "engine/prepared_rows.h"
#include "engine/tensor.h"

namespace terrace {

/// The multiplicative layer of the paper: a d_in -> S * M map from one d_in -> M projection, used S times on
/// inputs that a per-module gate has scaled.
///
///   y[s*M + m] = bias[s*M + m] + sum_i x[i] gate[s, i] proj[m, i]
///
/// Source: Jaszczur et al. 2021, sec. 3.2; Trax `FactoredDense`.
/// Cost per call: every weight once, S*d_in + M*d_in; multiply-adds S*M*d_in per row, as many as a dense
/// layer has. So the layer is bound by arithmetic: columns are cut into panels, and each panel of `proj` is
/// multiplied by all gated rows while it is in cache. Reduction order: within a panel of kPanel columns the
/// kernel's, then panel by panel, then the bias.
class FactoredDense {
 public:
  /// Columns per panel: part of the reduction order, so it does not depend on the machine.
  static constexpr std::size_t kPanel = 1024;
  /// Of one token: fewer modules than this at once leave the kernel's register blocks half empty.
  static constexpr std::size_t kModulesPerThread = 4;
  /// A projection up to here may be read by every thread: it stays in the last-level cache meanwhile.
  static constexpr std::size_t kSharedBytes = std::size_t{4} << 20;

  /// Whether each thread takes some of one token's modules through the whole projection.
  static constexpr bool goes_by_modules(std::size_t n_modules, std::size_t proj_bytes,
                                        std::size_t n_threads) noexcept {
    return n_modules / n_threads >= kModulesPerThread && proj_bytes <= kSharedBytes;
  }
  /// Work of a module then, as Exec counts it: gating, and the projection's rows from a cache.
  static constexpr std::size_t work_per_module(std::size_t d_in, std::size_t proj_rows,
                                               Packs packs) noexcept {
    return d_in * (sizeof(float) + proj_rows / multiply_adds_per_byte(packs));
  }

  FactoredDense() = default;
  /// gate [S, d_in], proj [M, d_in], bias [S * M] or null. Throws Error{kBadArgument} if the shapes disagree.
  FactoredDense(const DenseKernels& kernels, const WeightView& gate, const WeightView& proj,
                const float* bias);

  std::size_t d_in() const noexcept { return proj_.cols; }
  std::size_t d_out() const noexcept { return n_modules() * proj_.rows; }
  std::size_t n_modules() const noexcept { return gate_.rows; }
  std::size_t bytes_per_token() const noexcept;
  explicit operator bool() const noexcept { return static_cast<bool>(proj_); }

  /// y = layer(x); one phase for one token, else two or three per block of tokens. x and y must not overlap.
  void forward(Exec& exec, ConstRows x, Rows y) const;
  /// Whether the leader does that for one row itself.
  bool works_alone(std::size_t n_threads) const noexcept;
  /// The largest element of y, for one row x; three phases. y is not written anywhere.
  Largest largest(Exec& exec, ConstRows x) const;

 private:
  class GatedRows;  // the gated inputs of a few tokens

  void forward_batch(Exec& exec, ConstRows x, Rows y) const;
  std::uint32_t chunks_by_modules(std::size_t n_threads) const noexcept;
  /// One token: a thread gates its modules and takes them through the whole projection, without a barrier in
  /// between. The projection is small; the threads after the first find it in a nearby cache.
  void forward_by_modules(Exec& exec, const GatedRows& gated, Rows y) const;
  /// Rows [row, row + n_rows) of the projection for gated rows, of which the first is row `first` of the
  /// batch, over the columns of panel p: written to `out` by the first panel, added by the others. Outputs of
  /// neighbouring gated rows lie out_stride apart.
  void add_panel(std::size_t p, const PreparedRows& gated, std::size_t first, std::size_t row,
                 std::size_t n_rows, float* out, std::size_t out_stride) const noexcept;

  const DenseKernels* kernels_ = nullptr;
  Packs packs_ = Packs::kNone;  ///< of the gated rows
  WeightView gate_;
  WeightView proj_;
  const float* bias_ = nullptr;
};

}  // namespace terrace
