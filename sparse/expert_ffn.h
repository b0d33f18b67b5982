// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/linear.h"
#include "sparse/unit_sums.h"

namespace terrace {

struct ExpertChoice;
struct ExpertMembers;

/// Weights of E experts of U units each. `units` has the rows [E, M, U, d]: for every expert the gates of its
/// units if there are any (M = 3), their w1 rows, their w2 rows, each kind one contiguous run.
struct ExpertWeights {
  WeightView router;                   ///< [E, d]
  const float* router_bias = nullptr;  ///< [E] or null
  WeightView units;
  const float* unit_bias = nullptr;  ///< b1 [E * U] or null
  WeightView offsets;                ///< [E, d] or empty
  const float* bias = nullptr;       ///< b2 [d] or null
};

/// Feed-forward layer of experts, some of which a token uses: Trax `BlockSparseFF` and `SwitchSparseFF`
/// (one), and dense layers that were cut into experts (MoEfication).
///
///   z = router x + router_bias;   S = the n_active largest of z     first index on ties; a NaN comes last
///   a = relu(w1_e x + b1_e)       gated: relu(gate_e x) * (w1_e x + b1_e)
///   y = bias + sum over e in S, ascending, of offset_e + w2_e a_e   Switch: a *= softmax(z)[e]
///
/// An offset is minus what an expert would have added on average where it is not chosen; the bias holds the
/// sum of these averages. With all experts this is the dense layer, and the router is not asked. Sources:
/// those classes; Fedus et al. 2021 for Switch; Zhang et al. 2022, "MoEfication", sec. 3. Any cut into calls
/// and any number of threads gives the same bits. Cost per token: E*d + up to M*U*d weights per expert; w2
/// rows of zero activations are not read. A pass of several tokens reads the weights of an expert once.
class ExpertFfn {
 public:
  ExpertFfn() = default;
  /// Throws Error{kBadArgument} if the shapes disagree.
  ExpertFfn(const DenseKernels& kernels, const ExpertWeights& weights, bool gated, bool multiply_by_router);

  std::size_t d_model() const noexcept { return weights_.units.cols; }
  std::size_t d_ff() const noexcept { return n_experts() * n_units_; }
  std::size_t n_experts() const noexcept { return router_.d_out(); }
  /// Of one expert.
  std::size_t n_units() const noexcept { return n_units_; }
  /// Bytes of weights that one token reads when no activation is zero.
  std::size_t bytes_per_token(std::size_t n_active) const noexcept;

  /// y = layer(x) with `n_active` (1..E) experts per token. x and y must not overlap. `experts`, if not null,
  /// receives the experts of each row, [x.n, n_active], ascending.
  void forward(Exec& exec, ConstRows x, Rows y, std::size_t n_active, std::uint32_t* experts = nullptr) const;

 private:
  struct Token;

  ExpertChoice choose(Exec& exec, ConstRows x, std::size_t n_active, std::uint32_t* experts) const;

  // One token: its units one after the other, as a pipeline.
  void forward_token(Exec& exec, const PreparedRows& x, const ExpertChoice& choice, Rows y) const;
  void ask(const Token& token, const UnitSums::Step& step) const noexcept;
  void activate(const Token& token, const UnitSums::Step& step) const noexcept;
  void add_up(const Token& token, const UnitSums::Step& step) const noexcept;

  std::span<const std::uint32_t> beginning_in(const UnitSums& sums, std::size_t group,
                                              const std::uint32_t* experts) const noexcept;
  void begin_sum(std::span<const std::uint32_t> beginning, std::size_t begin, std::size_t end,
                 float* sum) const noexcept;

  // Several: expert by expert.
  void forward_members(Exec& exec, const PreparedRows& x, const ExpertChoice& choice, Rows y) const;
  void activate(Exec& exec, const PreparedRows& x, const ExpertMembers& members, float* h) const;
  void activate_units(const PreparedRows& x, std::size_t expert, std::size_t begin, std::size_t end,
                      const float* gains, float* g, float* h) const noexcept;

  std::size_t runs() const noexcept { return gated_ ? 3 : 2; }
  /// Row of `units` where run `run` of an expert begins: gates (if gated), w1, w2.
  std::size_t run_begin(std::size_t expert, std::size_t run) const noexcept {
    return (expert * runs() + run) * n_units_;
  }

  const DenseKernels* kernels_ = nullptr;
  Linear router_;
  ExpertWeights weights_;
  std::size_t n_units_ = 0;
  bool gated_ = false;
  bool multiply_by_router_ = false;
};

}  // namespace terrace
