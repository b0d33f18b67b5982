// SPDX-License-Identifier: Apache-2.0
#include "attention/lsh_attention.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "attention/attend_slots.h"
#include "attention/chunked_attention.h"
#include "attention/lsh_select.h"
#include "attention/score_scale.h"
#include "attention/shared_qk.h"
#include "engine/error.h"

namespace terrace {
namespace {

/// Memory of one head while it makes steps.
struct StepScratch {
  float* key;            // [d_k]
  std::uint32_t* ids;    // [n_hashes]
  float* hash;           // of LshHash
  std::uint32_t* slots;  // see select_slots
  SlotScratch attend;

  static std::size_t bytes(std::size_t d_k, std::size_t n_hashes, std::size_t hash_floats,
                           std::size_t budget) noexcept {
    return (d_k + (1 + kSelectNumbersPerRound) * n_hashes + hash_floats + 2 * budget) * sizeof(float) +
           4 * kCacheLine + SlotScratch::bytes(budget);
  }
  StepScratch(Workspace& ws, std::size_t d_k, std::size_t n_hashes, std::size_t hash_floats,
              std::size_t budget)
      : key(ws.take<float>(d_k)),
        ids(ws.take<std::uint32_t>(n_hashes)),
        hash(ws.take<float>(hash_floats)),
        slots(ws.take<std::uint32_t>(2 * budget + kSelectNumbersPerRound * n_hashes)),
        attend(ws, budget) {}
};

}  // namespace

LshAttention::LshAttention(const AttentionKernels& kernels, const LshConfig& config, const float* rotations,
                           std::size_t n_rotations)
    : kernels_(&kernels),
      config_(config),
      window_{config.mem_len, config.drop_len},
      rotations_(rotations),
      n_rotations_(n_rotations) {
  TERRACE_CHECK(config.n_heads > 0 && config.d_k > 0 && config.d_v > 0, kBadConfig,
                "LSH attention needs heads");
  TERRACE_CHECK(config.chunk_len > 0 && config.n_hashes > 0, kBadConfig,
                "LSH attention needs a chunk_len and at least one hash round");
  TERRACE_CHECK(config.mem_len > 0 && config.drop_len > 0 && config.drop_len <= config.mem_len, kBadConfig,
                "LSH attention: drop_len (" + std::to_string(config.drop_len) +
                    ") must lie between 1 and mem_len (" + std::to_string(config.mem_len) + ")");
  if (!config.n_buckets.empty()) hash_ = make_hash({config.n_buckets});
}

LshHash LshAttention::make_hash(LshBuckets buckets) const {
  TERRACE_CHECK(buckets.n_rotations() == n_rotations_, kBadConfig,
                "LSH attention: " + std::to_string(buckets.total()) + " buckets need " +
                    std::to_string(buckets.n_rotations()) + " rotation vectors per round, found " +
                    std::to_string(n_rotations_));
  return LshHash(*kernels_, std::move(buckets), config_.n_heads, config_.n_hashes, config_.d_k, rotations_);
}

LshState LshAttention::make_state(KvType type, std::size_t max_length) const {
  TERRACE_CHECK(
      hash_.has_value(), kBadConfig,
      "LSH attention needs an explicit n_buckets to decode: Trax would derive the number from the length of "
      "each call");
  return LshState(config_.n_heads, config_.d_k, config_.d_v, type, config_.n_hashes, hash_->buckets().total(),
                  max_length);
}

void LshAttention::step(const Exec& exec, LshState& state, ConstRows qk, ConstRows v, Rows y) const {
  const ProfileZone zone(exec.profile, Zone::kAttention);
  TERRACE_DCHECK(hash_.has_value() && state.length() + qk.n <= state.max_length());
  const Workspace::Scope scope(exec.ws);
  state.commit_next(qk.n);
  const std::size_t d_k = config_.d_k;
  const std::size_t d_v = config_.d_v;
  const std::size_t first = state.length();
  // A window that is full loses slots before it takes one more.
  const std::size_t all = std::min(first + qk.n, window_.mem_len + 1);
  const std::size_t most = state.attends_all() ? all : budget();
  auto* const scratch = exec.ws.take<StepScratch>(config_.n_heads);
  for (std::size_t h = 0; h < config_.n_heads; ++h) {
    std::construct_at(scratch + h, exec.ws, d_k, config_.n_hashes, hash_->scratch_floats(), most);
  }
  const float scale = score_scale(d_k);
  exec.team.run(static_cast<std::uint32_t>(config_.n_heads), [&](std::uint32_t h) {
    const StepScratch& mine = scratch[h];
    for (std::size_t t = 0; t < qk.n; ++t) {
      const float* q = qk.row(t) + h * d_k;
      float* out = y.row(t) + h * d_v;
      const std::size_t slot = first + t;
      hash_->hash(h, q, mine.ids, mine.hash);
      write_shared_key(*kernels_, q, d_k, mine.key);
      state.write(h, slot, mine.key, v.row(t) + h * d_v, mine.ids);
      const std::size_t n =
          state.attends_all() ? every_slot(slot, window_, mine.slots)
                              : select_slots(state, h, slot, config_.n_hashes, window_, budget(), mine.slots);
      if (n == 0) {
        std::fill_n(out, d_v, 0.0F);  // the empty slot was all that was chosen; its value is zero
        continue;
      }
      attend_slots(*kernels_, state, h, q, scale, mine.slots, n, mine.attend, out);
    }
  });
  state.set_length(first + qk.n);
}

std::vector<std::uint32_t> LshAttention::selected(const LshState& state, std::size_t head,
                                                  std::size_t t) const {
  std::vector<std::uint32_t> slots(2 * budget() + kSelectNumbersPerRound * config_.n_hashes);
  slots.resize(select_slots(state, head, t, config_.n_hashes, window_, budget(), slots.data()));
  return slots;
}

/// One call of full(): its heads take turns with the same memory.
class LshAttention::WholeSequence {
 public:
  WholeSequence(const LshAttention& attention, const Exec& exec, const LshHash& hash, ConstRows qk,
                ConstRows v, std::size_t n_real, bool causal)
      : config_(attention.config_),
        kernels_(*attention.kernels_),
        exec_(exec),
        hash_(hash),
        qk_(qk),
        v_(v),
        stride_(state_floats(config_.d_v)),
        key_factor_(exec.ws.take<float>(qk.n)),
        ids_(exec.ws.take<std::uint32_t>(n_entries())),
        order_(exec.ws.take<std::uint32_t>(n_entries())),
        states_(exec.ws.take<float>(n_entries() * stride_)),
        counts_(exec.ws.take<std::uint32_t>(std::size_t{hash.buckets().total()} + 2)) {
    head_.d_k = config_.d_k;
    head_.d_v = config_.d_v;
    head_.key_factor = key_factor_;
    head_.order = order_;
    head_.n_entries = n_entries();
    head_.chunk_len = config_.chunk_len;
    head_.n_chunks_before = config_.n_chunks_before;
    head_.n_chunks_after = config_.n_chunks_after;
    head_.n_real = n_real;
    head_.scale = score_scale(config_.d_k);
    head_.causal = causal;
    head_.share_qk = true;
    n_lanes_ = std::min<std::size_t>(head_.n_blocks(), exec.team.size() == 1 ? 1 : 4 * exec.team.size());
    lane_floats_ =
        attend_floats() + kChunkedQueries * stride_ + padded_width(hash.scratch_floats() + config_.n_hashes);
    lanes_ = exec.ws.take<float>(n_lanes_ * lane_floats_);
  }

  void take_head(std::size_t h) noexcept {
    h_ = h;
    head_.q = head_.k = {qk_.data + h * config_.d_k, qk_.stride};
    head_.v = {v_.data + h * config_.d_v, v_.stride};
  }

  /// Makes the list of entries: by round, bucket, position.
  void sort() const noexcept {
    const std::size_t n = qk_.n;
    const std::uint32_t padding = hash_.buckets().total();  // a bucket of its own
    for_lanes([&](std::size_t lane, float* scratch) {
      auto* const of_row = reinterpret_cast<std::uint32_t*>(scratch + hash_.scratch_floats());
      for (std::size_t t = lane * n / n_lanes_; t < (lane + 1) * n / n_lanes_; ++t) {
        key_factor_[t] = shared_key_factor(kernels_, head_.q.row(t), config_.d_k);
        hash_.hash(h_, head_.q.row(t), of_row, scratch);
        for (std::size_t round = 0; round < config_.n_hashes; ++round) {
          ids_[round * n + t] = t < head_.n_real ? of_row[round] : padding;
        }
      }
    });
    for (std::size_t round = 0; round < config_.n_hashes; ++round) {
      sort_by_bucket(ids_ + round * n, n, padding + 1, counts_, order_ + round * n);
    }
  }

  /// Softmax states of every row in every round.
  void attend() const noexcept {
    for_lanes([&](std::size_t lane, float* scratch) {
      float* const found = scratch + attend_floats();
      for (std::size_t i = lane; i < head_.n_blocks(); i += n_lanes_) {
        const ChunkedHead::Block block = head_.block(i);
        attend_entries(kernels_, head_, block, scratch, found);
        for (std::size_t e = 0; e < block.n; ++e) {
          const std::size_t entry = block.first + e;
          std::memcpy(state(entry / qk_.n, order_[entry]), found + e * stride_, stride_ * sizeof(float));
        }
      }
    });
  }

  /// Weighting the rounds by softmax(logsumexp) is one softmax over the keys of all rounds: a merge of the
  /// states.
  void merge(Rows y) const noexcept {
    exec_.for_range(qk_.n, 1, config_.n_hashes * stride_, [&](std::size_t begin, std::size_t end) {
      for (std::size_t t = begin; t < end; ++t) {
        for (std::size_t round = 1; round < config_.n_hashes; ++round) {
          kernels_.merge(state(0, t), state(round, t), config_.d_v);
        }
        kernels_.finish(state(0, t), config_.d_v, y.row(t) + h_ * config_.d_v);
      }
    });
  }

 private:
  std::size_t n_entries() const noexcept { return config_.n_hashes * qk_.n; }
  std::size_t attend_floats() const noexcept { return chunked_scratch_floats(config_.d_k, config_.d_v); }
  float* state(std::size_t round, std::size_t t) const noexcept {
    return states_ + (round * qk_.n + t) * stride_;
  }
  /// Calls fn(lane, scratch) for every lane, in a phase.
  template <class F>
  void for_lanes(F fn) const noexcept {
    exec_.team.run(static_cast<std::uint32_t>(n_lanes_),
                   [&](std::uint32_t lane) { fn(std::size_t{lane}, lanes_ + lane * lane_floats_); });
  }

  const LshConfig& config_;
  const AttentionKernels& kernels_;
  const Exec& exec_;
  const LshHash& hash_;
  ConstRows qk_, v_;
  std::size_t stride_;     // of a state
  float* key_factor_;      // [row]
  std::uint32_t* ids_;     // [round, row]: bucket
  std::uint32_t* order_;   // [round, n]: rows
  float* states_;          // [round, row]
  std::uint32_t* counts_;  // of sort_by_bucket
  ChunkedHead head_;
  std::size_t h_ = 0;
  std::size_t n_lanes_ = 0, lane_floats_ = 0;
  float* lanes_ = nullptr;  // [n_lanes, lane_floats]
};

void LshAttention::full(const Exec& exec, ConstRows qk, ConstRows v, std::size_t n_real, bool causal, Rows y,
                        const RowTick& tick) const {
  const std::size_t n = qk.n;
  if (n == 0) return;
  const std::size_t n_entries = config_.n_hashes * n;
  TERRACE_CHECK(n_entries % config_.chunk_len == 0, kBadArgument,
                "LSH attention: hash rounds times rows (" + std::to_string(n_entries) +
                    ") must be a multiple of chunk_len (" + std::to_string(config_.chunk_len) + ")");
  const LshHash hash = hash_ ? *hash_ : make_hash(LshBuckets::from_length(n, config_.chunk_len));
  const Workspace::Scope scope(exec.ws);
  WholeSequence whole(*this, exec, hash, qk, v, n_real, causal);
  for (std::size_t h = 0; h < config_.n_heads; ++h) {
    whole.take_head(h);
    whole.sort();
    whole.attend();
    whole.merge(y);
    if (tick) tick((h + 1) * n / config_.n_heads - h * n / config_.n_heads);
  }
}

std::size_t LshAttention::workspace_bytes(std::size_t max_rows, unsigned n_threads) const noexcept {
  const std::size_t hash_floats = config_.n_hashes * n_rotations_;
  const std::size_t step =
      config_.n_heads *
      (sizeof(StepScratch) + StepScratch::bytes(config_.d_k, config_.n_hashes, hash_floats, budget()));
  const std::size_t n_lanes = n_threads == 1 ? 1 : std::size_t{4} * n_threads;
  const std::size_t n_entries = config_.n_hashes * max_rows;
  const std::size_t n_buckets = hash_ ? hash_->buckets().total() : 2 * max_rows;
  const std::size_t stride = state_floats(config_.d_v);
  const std::size_t lane_floats = chunked_scratch_floats(config_.d_k, config_.d_v) +
                                  kChunkedQueries * stride + padded_width(hash_floats + config_.n_hashes);
  const std::size_t full =
      (max_rows + n_entries * (2 + stride) + n_buckets + 2 + n_lanes * lane_floats) * sizeof(float);
  return std::max(step, full) + 8 * kCacheLine;
}

}  // namespace terrace
