// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "engine/bandwidth.h"
#include "engine/runtime.h"
#include "engine/tensor.h"

namespace terrace {

/// How fast some threads multiply, at best.
struct ComputeRates {
  /// Of the dense kernels for one dtype and one activation row, on weights that stay in L2.
  double multiply_adds_per_s = 0;
  /// The same for the sixteen rows, packed if the dtype has packs, that a layer of modules makes of a token.
  double module_multiply_adds_per_s = 0;
};

/// How fast some threads read weights and multiply with them.
struct ThreadRates {
  ComputeRates compute;
  double weight_bytes_per_s = 0;  ///< read rate of a buffer as large as the weights that a token reads
};

/// Bytes per second, as MachineRates has them.
struct ReadRates {
  double team, leader, scattered;
};

/// What a cost model knows of a machine (models/cost_model.h): for one dtype and one number of threads.
/// Measured, or the figures of a machine that is not at hand.
struct MachineRates {
  ThreadRates team;    ///< all threads
  ThreadRates leader;  ///< one of them, while the others wait
  /// Read rate, of all threads, of rows in no order out of as many as the layers that choose rows have, asked
  /// for some rows ahead.
  double scattered_bytes_per_s = 0;
  double state_bytes_per_s = 0;  ///< read rate of memory
  double seconds_per_phase = 0;  ///< an empty one

  void set(const ReadRates& read) noexcept;
};

/// Models that read less than this per token have a read rate of their own: caches keep a part.
inline constexpr std::uint64_t kOwnProbeBytes = std::uint64_t{256} << 20;

/// Of a buffer as large as the weights, which `memory` may be, and of rows out of the large one.
ReadRates measure_read_rates(Runtime& runtime, const BandwidthProbe& weights, const BandwidthProbe& memory,
                             const ScatteredRows& rows);

/// What does not depend on a model: the rates of computing and the time of a phase. Takes about 0.1 s, with
/// scalar kernels a second. Uses the kernels of isa_from_environment(); throws Error{kUnsupported,
/// kOutOfMemory}.
MachineRates measure_compute_rates(Runtime& runtime, DType dtype);

/// The same with the read rates for a token that reads `weight_bytes` of weights, and some of `rows`. Takes
/// about a second more, and 512 MB of memory meanwhile.
MachineRates measure_machine_rates(Runtime& runtime, DType dtype, std::uint64_t weight_bytes,
                                   const ScatteredRows& rows);

}  // namespace terrace
