// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "attention/kv_cache.h"
#include "attention/lsh_state.h"
#include "attention/memory_window.h"
#include "attention/row_positions.h"
#include "attention/slot_positions.h"
#include "engine/exec.h"
#include "engine/memory.h"
#include "engine/progress.h"
#include "engine/recurrent_state.h"
#include "engine/serial.h"

namespace terrace {

/// The route of a layer that runs on every token.
inline constexpr std::size_t kEveryToken = static_cast<std::size_t>(-1);

/// Shape of one layer's K/V cache.
struct KvSpec {
  std::size_t n_heads;
  std::size_t d_k;
  std::size_t d_v;
  std::size_t until = 0;            ///< later positions neither fill nor read it; 0: all do
  std::size_t route = kEveryToken;  ///< of a block that skips tokens: StateLayout::add_route()
};

/// Shape of one layer's LSH state.
struct LshSpec {
  std::size_t n_heads;
  std::size_t d_k;
  std::size_t d_v;
  std::size_t n_hashes;
  std::uint32_t n_buckets;  ///< of one round
  std::size_t budget;       ///< slots that a query reads at most
  MemoryWindow window;      ///< slots that are remembered
  std::size_t route = kEveryToken;
};

/// What state the layers of a stack keep: filled while the model is built, so that a session can make all of
/// it at once. There are only two kinds: append-only slots, cut by truncate(), and one flat recurrent block,
/// restored from a snapshot. Fork, rewind, save and load handle both without knowing the layers.
struct StateLayout {
  RecurrentLayout recurrent;
  std::vector<KvSpec> kv;
  std::vector<LshSpec> lsh;
  std::size_t n_routes = 0;  ///< blocks that skip tokens

  /// Reserves a cache; returns its index.
  std::size_t add_kv(const KvSpec& spec) {
    kv.push_back(spec);
    return kv.size() - 1;
  }
  std::size_t add_lsh(const LshSpec& spec) {
    lsh.push_back(spec);
    return lsh.size() - 1;
  }
  /// Says that the caches from `first_kv` and `first_lsh` on belong to a block that skips tokens: they have
  /// slots only for the tokens of its route. Returns the route's index.
  std::size_t add_route(std::size_t first_kv, std::size_t first_lsh) {
    for (std::size_t i = first_kv; i < kv.size(); ++i) kv[i].route = n_routes;
    for (std::size_t i = first_lsh; i < lsh.size(); ++i) lsh[i].route = n_routes;
    return n_routes++;
  }
};

/// State of a causal stack's layers in one session.
class StackState {
 public:
  StackState() = default;
  /// Reserves memory for `max_length` rows; `layout` must outlive it. Throws Error{kOutOfMemory}.
  StackState(const StateLayout& layout, KvType kv_type, std::size_t max_length);

  KvCache& kv(std::size_t index) noexcept { return kv_[index]; }
  LshState& lsh(std::size_t index) noexcept { return lsh_[index]; }
  SlotPositions& route(std::size_t index) noexcept { return routes_[index]; }
  const SlotPositions& route(std::size_t index) const noexcept { return routes_[index]; }
  /// LSH attention attends to every slot that it remembers, from now on.
  void attend_all() noexcept {
    for (LshState& state : lsh_) state.attend_all();
  }
  std::span<float> recurrent() const noexcept { return recurrent_.as<float>().first(recurrent_floats_); }

  /// Cuts the append-only part to `length` positions; the recurrent block is the caller's to restore.
  void truncate(std::size_t length);
  StackState fork() const;
  void save(ByteSink& sink) const;
  /// The state of a sequence of `length` positions. Throws Error{kBadFile} where a layer holds more.
  void load(ByteSource& source, std::size_t length);
  /// Bytes of the append-only part in use.
  std::size_t cache_bytes() const noexcept;

 private:
  /// Slots that a cache of `route` has for the first `length` positions.
  std::size_t slots_of(std::size_t route, std::size_t length) const noexcept {
    return route == kEveryToken ? length : routes_[route].slots_before(length);
  }

  const StateLayout* layout_ = nullptr;
  std::vector<KvCache> kv_;
  std::vector<LshState> lsh_;
  std::vector<SlotPositions> routes_;
  VirtualBuffer recurrent_;
  std::size_t recurrent_floats_ = 0;
};

/// What the layers of a causal stack run on: the next rows of one session.
struct StepContext {
  Exec& exec;
  StackState& state;
  RecurrentBlock recurrent;       ///< of the state
  RowPositions positions;         ///< of the rows in the stack's sequence
  const RowTick* tick = nullptr;  ///< told of all rows after each block, where a caller wants to know
};

}  // namespace terrace
