// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "attention/kv_cache.h"
#include "attention/lsh_state.h"
#include "engine/exec.h"
#include "engine/memory.h"
#include "engine/progress.h"
#include "engine/recurrent_state.h"
#include "engine/serial.h"

namespace terrace {

/// Shape of one layer's K/V cache.
struct KvSpec {
  std::size_t n_heads;
  std::size_t d_k;
  std::size_t d_v;
};

/// Shape of one layer's LSH state.
struct LshSpec {
  std::size_t n_heads;
  std::size_t d_k;
  std::size_t d_v;
  std::size_t n_hashes;
  std::uint32_t n_buckets;  ///< of one round
};

/// What state the layers of a stack keep: filled while the model is built, so that a session can make all of
/// it at once. The two kinds are all there are: append-only slots, cut by truncate(), and one flat recurrent
/// block, restored from a snapshot. Fork, rewind, save and load handle both without knowing the layers.
struct StateLayout {
  RecurrentLayout recurrent;
  std::vector<KvSpec> kv;
  std::vector<LshSpec> lsh;

  /// Reserves a cache; returns its index.
  std::size_t add_kv(const KvSpec& spec) {
    kv.push_back(spec);
    return kv.size() - 1;
  }
  std::size_t add_lsh(const LshSpec& spec) {
    lsh.push_back(spec);
    return lsh.size() - 1;
  }
};

/// State of a causal stack's layers in one session.
class StackState {
 public:
  StackState() = default;
  /// Reserves memory for `max_length` rows. Throws Error{kOutOfMemory}.
  StackState(const StateLayout& layout, KvType kv_type, std::size_t max_length);

  KvCache& kv(std::size_t index) noexcept { return kv_[index]; }
  LshState& lsh(std::size_t index) noexcept { return lsh_[index]; }
  std::span<float> recurrent() const noexcept { return recurrent_.as<float>().first(recurrent_floats_); }

  /// Cuts the append-only part to `length` rows; the recurrent block is the caller's to restore.
  void truncate(std::size_t length);
  StackState fork() const;
  void save(ByteSink& sink) const;
  void load(ByteSource& source);
  /// Bytes of the append-only part in use.
  std::size_t cache_bytes() const noexcept;

 private:
  std::vector<KvCache> kv_;
  std::vector<LshState> lsh_;
  VirtualBuffer recurrent_;
  std::size_t recurrent_floats_ = 0;
};

/// What the layers of a causal stack run on: the next rows of one session.
struct StepContext {
  Exec& exec;
  StackState& state;
  std::size_t position;           ///< index of row 0 in the stack's sequence, for encodings inside attention
  const RowTick* tick = nullptr;  ///< told of all rows after each block, where a caller wants to know
};

}  // namespace terrace
