// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "attention/kv_cache.h"
#include "engine/runtime.h"
#include "models/session.h"
#include "models/speculation.h"
#include "tools/common/resources.h"

namespace terrace::tools {

/// What a generation cost. The caller counts and times; measure() adds the rest at the end.
struct GenerationStats {
  std::size_t prompt_tokens = 0;
  double prompt_seconds = 0;
  // An encoder-decoder model's prompt in its two parts; zero for others.
  std::size_t encoder_tokens = 0;
  double encoder_seconds = 0;
  double prefill_seconds = 0;  ///< the encoder's rows and the first token through the decoder
  std::int64_t decode_tokens = 0;
  double decode_seconds = 0;
  DiskReads decode_reads;          ///< while the tokens were generated
  std::size_t first_position = 0;  ///< tokens in the context before the first generated one
  std::string sampler;             ///< what drew the tokens
  std::uint64_t seed = 0;
  std::optional<SpeculationStats> speculation;

  double bytes_per_token =
      0;  ///< weights, keys, values and recurrent state, the mean over the generated tokens
  double active_weight_share = 0;
  double read_bw_bytes_per_s = 0;
  std::vector<double> routed_shares;  ///< of the tokens that ran each routed block
  std::uint64_t kv_bytes = 0;
  std::uint64_t state_bytes = 0;     ///< kv_bytes, recurrent state and its snapshots, scratch memory
  std::uint64_t peak_rss_bytes = 0;  ///< of the process, pages of the model file included

  /// Fills in the second group; probes the read bandwidth with the runtime's threads, which takes a moment.
  void measure(const Session& session, Runtime& runtime, KvType kv_type, bool exact_attention);

  /// A table for people, one figure per line.
  std::string text() const;
  /// One JSON object in one line.
  std::string json() const;
};

}  // namespace terrace::tools
