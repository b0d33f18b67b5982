// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "attention/kv_rows.h"
#include "models/config.h"
#include "models/session_state.h"

namespace terrace {

/// What a session of a model keeps, from the configuration alone: no layer is built.
struct StatePlan {
  StateLayout decoder;        ///< as the decoder's layers reserve it
  std::vector<KvSpec> cross;  ///< one per block with cross attention: its keys and values of the document
};

/// Throws Error{kBadConfig} for a configuration that describes no model.
StatePlan state_plan(const ModelConfig& config);

/// Where a token stands that is to be decoded, and how keys and values are kept.
struct TokenPlace {
  KvType kv_type = KvType::kF32;
  std::size_t position = 0;        ///< of the token, from 0: so many were read before
  std::size_t encoder_length = 0;  ///< tokens of the document
  bool exact_attention = false;    ///< LSH layers attend to all that they remember, not to their budget
};

/// What attention and recurrent layers do for one token.
struct StateCost {
  std::uint64_t bytes = 0;          ///< of keys, values (the document's included) and recurrent state, read
  std::uint64_t multiply_adds = 0;  ///< scores and weighted values: n_heads (d_k + d_v) per slot
};

/// Of one layer with `slots` visible slots: bytes n_kv_heads slot_bytes slots. LSH layers read their budget
/// of slots, routed layers their share of the positions for their share of the tokens. Chunked attention is
/// counted as if it read everything.
StateCost state_cost(const ModelConfig& config, const StatePlan& plan, const TokenPlace& place);

/// Memory of a session with `context` positions in use and a document: pages of keys and values, hash lists,
/// recurrent state and its snapshots.
std::uint64_t session_bytes(const ModelConfig& config, const StatePlan& plan, KvType kv_type,
                            std::size_t context, std::size_t encoder_length);

/// Scratch memory that a session comes to use beside that, about: a pass over kSnapshotInterval tokens takes
/// up to 24 rows of d_model and two of d_ff for each. (An encoder's pass over a document is not counted.)
std::uint64_t pass_scratch_bytes(const ModelConfig& config) noexcept;

}  // namespace terrace
