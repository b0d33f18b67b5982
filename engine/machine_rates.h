// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "engine/runtime.h"
#include "engine/tensor.h"

namespace terrace {

/// How fast the threads of a runtime compute and meet, at best.
struct ComputeRates {
  /// Of the dense kernels for one dtype and one activation row, on weights that stay in L2.
  double multiply_adds_per_s = 0;
  /// The same for the sixteen rows, packed if the dtype has packs, that a layer of modules makes of a token.
  double module_multiply_adds_per_s = 0;
  /// An empty phase.
  double seconds_per_phase = 0;
};

/// What a cost model knows of a machine (models/cost_model.h): for one dtype and one number of threads.
/// Measured, or the figures of a machine that is not at hand.
struct MachineRates {
  ComputeRates compute;
  double weight_bytes_per_s = 0;  ///< read rate of a buffer as large as the weights that a token reads
  double state_bytes_per_s = 0;   ///< read rate of memory
};

/// Models that read less than this per token have a read rate of their own: caches keep a part.
inline constexpr std::uint64_t kOwnProbeBytes = std::uint64_t{256} << 20;

/// Takes about 50 ms, with scalar kernels half a second. Uses the kernels of isa_from_environment(); throws
/// Error{kUnsupported, kOutOfMemory}.
ComputeRates measure_compute_rates(Runtime& runtime, DType dtype);

/// The same with the read rates for a token that reads `weight_bytes` of weights. Takes about 0.5 s more, and
/// 512 MB of memory meanwhile.
MachineRates measure_machine_rates(Runtime& runtime, DType dtype, std::uint64_t weight_bytes);

}  // namespace terrace
