// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/machine_rates.h"
#include "models/state_plan.h"
#include "models/stored_plan.h"

namespace terrace {

// How long a decoded token takes if only bytes, multiply-adds and phases count:
//
//   seconds = sum over weight tensors of max(bytes / bytes_per_s, multiply-adds / multiply_adds_per_s)
//           + max(state bytes / state_bytes_per_s, multiply-adds of attention / multiply_adds_per_s)
//           + phases * seconds_per_phase
//
// The serial form of the roofline of Pope et al. 2022 ("Efficiently Scaling Transformer Inference", arXiv
// 2211.05102) with the barriers of one machine in place of the network. Rates are those of all threads, or of
// one for tensors too small to be shared (token_cut.h); rows that a token chooses come in no order and have a
// rate of their own. It leaves out norms, softmax, quantising activations, and chunks that end unevenly. A
// faster measurement means that caches helped. Nothing is measured here: MachineRates are an argument.

/// The stages of a token: the kinds of layer, whose weights it reads, then keys, values and recurrent state.
inline constexpr std::size_t kStages = kLayerKinds + 1;
inline constexpr std::size_t kStateStage = kLayerKinds;
/// As layer_kind_name(), and "state".
const char* stage_name(std::size_t stage) noexcept;

/// Bytes that are read once and what is computed with them meanwhile.
struct WorkItem {
  std::uint64_t bytes = 0;
  std::uint64_t multiply_adds = 0;
  bool many_rows = false;  ///< weights that meet as many rows of one token as kernels pack
  bool scattered = false;  ///< rows that the token chooses
  bool shared = true;      ///< by all threads; otherwise the leader's
};

/// What one token takes: per stage the tensors, or all state as one item.
using TokenWork = std::array<std::vector<WorkItem>, kStages>;

/// `widths` as in layer_cost(); `shared` by tensor, as TokenCut has it.
TokenWork token_work(const ModelConfig& config, std::span<const StoredTensor> tensors,
                     std::span<const std::uint32_t> widths, const TokenPlace& place,
                     const std::vector<bool>& shared);

/// The rows that tokens choose of the decoder's feed-forward layers; none if they choose none.
ScatteredRows scattered_rows(const ModelConfig& config, std::span<const StoredTensor> tensors) noexcept;

/// Phases of one token that threads share: by stage, and where nobody knows of which (a count of a run).
struct TokenPhases {
  std::array<double, kStages> by_stage{};
  double of_no_stage = 0;

  double total() const noexcept;
};

/// What most of a stage's time goes to.
enum class Bound { kReading, kArithmetic, kPhases };
/// "reading", "arithmetic", "phases".
const char* bound_name(Bound bound) noexcept;

/// Where the time of one stage goes. Items that read longer than they compute count as reading.
struct StageTime {
  std::uint64_t bytes = 0;
  std::uint64_t multiply_adds = 0;
  double phases = 0;
  double reading_s = 0;
  double arithmetic_s = 0;
  double phases_s = 0;

  double seconds() const noexcept { return reading_s + arithmetic_s + phases_s; }
  Bound bound() const noexcept;
  StageTime& operator+=(const StageTime& other) noexcept;
};

struct Prediction {
  std::array<StageTime, kStages> stages;
  StageTime total;  ///< with the phases of no stage

  /// The stage that takes longest.
  std::size_t binding_stage() const noexcept;
};

/// Seconds per token by stage. Throws Error{kBadArgument} for a rate that is not positive (the time per phase
/// may be 0).
Prediction predict(const TokenWork& work, const TokenPhases& phases, const MachineRates& rates);

}  // namespace terrace
