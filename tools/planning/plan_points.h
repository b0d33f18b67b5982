// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "models/cost_model.h"

namespace terrace::tools {

/// A model as it is stored, in a file or not yet.
struct StoredModel {
  DType dtype;  ///< of most weights
  std::vector<StoredTensor> tensors;
};

/// What `terrace plan` is to look at: every combination of the lists, none of which is empty.
struct PlanRequest {
  std::string name;    ///< file or preset
  ModelConfig config;  ///< of a language model, or of one that reads a document
  std::vector<StoredModel> stored;
  std::vector<std::uint32_t> contexts;
  std::vector<unsigned> threads;
  std::vector<std::string> kv_types;               ///< as on the command line
  std::vector<std::vector<std::uint32_t>> widths;  ///< one number, or one per block
  std::size_t document = 0;                        ///< tokens
};

/// One combination and what is predicted for the last token of its context.
struct PlanPoint {
  const StoredModel* stored;
  KvType kv_type;
  unsigned n_threads;
  const std::vector<std::uint32_t>* widths;
  std::uint32_t context;
  MachineRates rates;
  std::uint64_t parameters;
  std::uint64_t active_parameters;
  Prediction prediction;

  double ms() const noexcept { return 1e3 * prediction.total.seconds(); }
  /// Bytes per second over the read rate of memory.
  double bandwidth_share() const noexcept;
};

/// All of them, contexts varying fastest. Measures the machine once for each number of threads and dtype
/// (about half a second). Throws Error{kOutOfMemory} where the probes have no room. The points keep pointers
/// into the request.
std::vector<PlanPoint> plan_points(const PlanRequest& request);

/// "4096", or "512,512,1024,...".
std::string width_text(const std::vector<std::uint32_t>& widths);

/// Memory that a point needs.
struct PlanMemory {
  std::uint64_t weights;    ///< the whole file, or the plan of it
  std::uint64_t session;    ///< keys, values, state with the context full
  std::uint64_t workspace;  ///< of a pass, at most
  std::uint64_t available;

  std::uint64_t needed() const noexcept { return weights + session + workspace; }
  bool fits() const noexcept { return needed() <= available; }
};

PlanMemory plan_memory(const PlanRequest& request, const PlanPoint& point);

}  // namespace terrace::tools
