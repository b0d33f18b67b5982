// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "attention/kernels/attention_kernels.h"
#include "engine/exec.h"
#include "engine/progress.h"
#include "engine/recurrent_state.h"
#include "engine/tensor.h"

namespace terrace {

/// FAVOR+ linear attention on projected rows q, k, v, y [n, n_heads * d_head].
///
///   relu features (default):  f(x) = relu(x) + 1e-3
///   softmax features W [m, d_head]:  a = W x,  b = |x|^2 / 2
///     f_q = (exp(a - b - max_m a) + 1e-4) / sqrt(m)
///     f_k = (exp(a - b - max_{m, real keys} a) + 1e-4) / sqrt(m)
///   causal:         P += f_k v^T, z += f_k, y = (f_q P) / (f_q . z)
///   bidirectional:  the same with P and z summed over all keys
///
/// Source: Choromanski et al. 2021; Trax `Favor`, `CausalFavor` (whose predict mode forgets P and z between
/// calls; this keeps them, which is its eval mode).
class FavorAttention {
 public:
  FavorAttention() = default;
  /// `features` [n_features, d_head] (a view) selects softmax features; they need all keys at once and
  /// therefore have no causal form. Throws Error{kBadConfig}.
  FavorAttention(const AttentionKernels& kernels, std::size_t n_heads, std::size_t d_head,
                 const float* features = nullptr, std::size_t n_features = 0);

  /// Floats of recurrent state in the causal form (RecurrentLayout::add); all zero at the start.
  std::size_t state_floats() const noexcept { return n_heads_ * head_state_floats(d_head_, width()); }
  /// Those of one head with so many features.
  static std::size_t head_state_floats(std::size_t d_head, std::size_t n_features) noexcept;

  /// Causal form; updates `state` [state_floats()]. Same bits for any split into calls. Throws
  /// Error{kUnsupported} with softmax features. Cost per channel and row: 2 * d_head multiply-adds, and
  /// 4 * d_head bytes read and written once.
  void causal(const Exec& exec, const RecurrentSlot& state, ConstRows q, ConstRows k, ConstRows v,
              Rows y) const;

  /// Bidirectional form over the first `n_real` keys, for all rows of q. `tick` is told of q.n rows in all.
  void full(const Exec& exec, ConstRows q, ConstRows k, ConstRows v, std::size_t n_real, Rows y,
            const RowTick& tick = {}) const;

  /// Workspace that either form needs.
  std::size_t workspace_bytes() const noexcept;

 private:
  std::size_t width() const noexcept { return feature_rows_.empty() ? d_head_ : feature_rows_.size(); }
  std::size_t head_state_floats() const noexcept { return head_state_floats(d_head_, width()); }
  void add_key(const float* features, const float* value, float* sums) const noexcept;
  void answer(const float* features, const float* sums, float* scratch, float* y) const noexcept;
  void softmax_features(const float* x, float top, float* features) const noexcept;

  const AttentionKernels* kernels_ = nullptr;
  std::size_t n_heads_ = 0, d_head_ = 0;
  std::vector<const float*> feature_rows_;  // empty: relu features
};

}  // namespace terrace
