// SPDX-License-Identifier: Apache-2.0
#include "attention/self_attention.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>

#include "attention/chunked_attention.h"
#include "attention/score_scale.h"
#include "attention/shared_qk.h"
#include "engine/error.h"

namespace terrace {
namespace {

/// Multiply-adds between two ticks: some tens of milliseconds on one core.
constexpr std::size_t kWorkPerPass = std::size_t{1} << 28;

/// What all heads of a sequence of n rows have in common.
ChunkedHead every_head(const SelfAttentionConfig& config, std::size_t n, std::size_t n_real, bool causal,
                       const std::uint32_t* order) noexcept {
  ChunkedHead head;
  head.d_k = config.d_k;
  head.d_v = config.d_v;
  head.order = order;
  head.n_entries = n;
  head.chunk_len = config.chunk_len ? config.chunk_len : n;
  head.n_chunks_before = config.n_chunks_before;
  head.n_chunks_after = config.n_chunks_after;
  head.n_real = n_real;
  head.scale = score_scale(config.d_k);
  head.causal = causal;
  head.share_qk = config.share_qk;
  return head;
}

}  // namespace

SelfAttention::SelfAttention(const AttentionKernels& kernels, const SelfAttentionConfig& config)
    : kernels_(&kernels),
      config_(config),
      core_(kernels, config.n_heads, config.n_heads, config.d_k, config.d_v, 0) {
  TERRACE_CHECK(config.chunk_len > 0 || (config.n_chunks_before == 0 && config.n_chunks_after == 0),
                kBadConfig, "self attention: chunks before and after need a chunk_len");
  window_.mem_len = config.mem_len ? config.mem_len : config.chunk_len * (1 + config.n_chunks_before);
  window_.drop_len = config.drop_len ? config.drop_len : std::max<std::size_t>(1, config.chunk_len);
  TERRACE_CHECK(window_.mem_len == 0 || window_.drop_len <= window_.mem_len, kBadConfig,
                "self attention: drop_len (" + std::to_string(window_.drop_len) +
                    ") must not exceed mem_len (" + std::to_string(window_.mem_len) + ")");
}

void SelfAttention::full(const Exec& exec, ConstRows q, ConstRows k, ConstRows v, std::size_t n_real,
                         bool causal, Rows y, const RowTick& tick) const {
  const std::size_t n = q.n;
  if (n == 0) return;
  TERRACE_CHECK(config_.chunk_len == 0 || n % config_.chunk_len == 0, kBadArgument,
                "self attention: the number of rows (" + std::to_string(n) +
                    ") must be a multiple of chunk_len (" + std::to_string(config_.chunk_len) + ")");
  const Workspace::Scope scope(exec.ws);
  const std::size_t d_k = config_.d_k;
  const std::size_t d_v = config_.d_v;
  auto* order = exec.ws.take<std::uint32_t>(n);
  std::iota(order, order + n, std::uint32_t{0});
  float* key_factor = config_.share_qk ? exec.ws.take<float>(config_.n_heads * n) : nullptr;
  if (key_factor) {
    exec.for_range(config_.n_heads * n, 1, d_k, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        key_factor[i] = shared_key_factor(*kernels_, q.row(i % n) + i / n * d_k, d_k);
      }
    });
  }

  const ChunkedHead every = every_head(config_, n, n_real, causal, order);
  const std::size_t n_seen = every.chunk_len * (1 + config_.n_chunks_before + config_.n_chunks_after);
  const std::size_t block_work = every.block(0).n * n_seen * (d_k + d_v);
  const std::size_t n_tasks = config_.n_heads * every.n_blocks();
  const std::size_t n_lanes =
      std::min<std::size_t>(n_tasks, exec.team.size() == 1 ? 1 : 4 * exec.team.size());
  const std::size_t tasks_per_pass = std::max(n_lanes, kWorkPerPass / std::max<std::size_t>(1, block_work));
  const std::size_t scratch_floats = chunked_scratch_floats(d_k, d_v);
  const std::size_t states_floats = kChunkedQueries * state_floats(d_v);
  auto* const memory = exec.ws.take<float>(n_lanes * (scratch_floats + states_floats));

  const auto attend_block = [&](std::size_t task, float* scratch) {
    const std::size_t h = task / every.n_blocks();
    const ChunkedHead::Block block = every.block(task % every.n_blocks());
    ChunkedHead head = every;
    head.q = {q.data + h * d_k, q.stride};
    head.k = config_.share_qk ? head.q : ChunkedHead::RowsOfHead{k.data + h * d_k, k.stride};
    head.v = {v.data + h * d_v, v.stride};
    head.key_factor = key_factor ? key_factor + h * n : nullptr;
    float* const states = scratch + scratch_floats;
    attend_entries(*kernels_, head, block, scratch, states);
    for (std::size_t i = 0; i < block.n; ++i) {
      kernels_->finish(states + i * state_floats(d_v), d_v, y.row(block.first + i) + h * d_v);
    }
  };
  for (std::size_t begin = 0; begin < n_tasks; begin += tasks_per_pass) {
    const std::size_t end = std::min(n_tasks, begin + tasks_per_pass);
    exec.team.run(static_cast<std::uint32_t>(n_lanes), [&](std::uint32_t lane) {
      float* const scratch = memory + lane * (scratch_floats + states_floats);
      for (std::size_t task = begin + lane; task < end; task += n_lanes) attend_block(task, scratch);
    });
    if (tick) tick(end * n / n_tasks - begin * n / n_tasks);
  }
}

void SelfAttention::step(const Exec& exec, KvCache& kv, ConstRows q, ConstRows k, ConstRows v, Rows y) const {
  const ProfileZone zone(exec.profile, Zone::kAttention);
  const Workspace::Scope scope(exec.ws);
  if (config_.share_qk) {
    const std::size_t d_k = config_.d_k;
    const std::size_t width = config_.n_heads * d_k;
    const Rows keys{exec.ws.take<float>(q.n * width), q.n, width, width};
    exec.for_range(q.n, 1, width, [&](std::size_t begin, std::size_t end) {
      for (std::size_t t = begin; t < end; ++t) {
        for (std::size_t h = 0; h < width; h += d_k)
          write_shared_key(*kernels_, q.row(t) + h, d_k, keys.row(t) + h);
      }
    });
    k = keys;
  }
  core_.append_and_run(exec, kv, k, v, VisibleSlots::causal(kv.length(), config_.share_qk, window_), q, y);
}

std::size_t SelfAttention::workspace_bytes(std::size_t max_rows, std::size_t max_length,
                                           unsigned n_threads) const noexcept {
  const std::size_t n_lanes = n_threads == 1 ? 1 : std::size_t{4} * n_threads;
  const std::size_t per_lane =
      chunked_scratch_floats(config_.d_k, config_.d_v) + kChunkedQueries * state_floats(config_.d_v);
  const std::size_t full = (max_rows * (1 + config_.n_heads) + n_lanes * per_lane) * sizeof(float);
  const std::size_t step = max_rows * config_.n_heads * config_.d_k * sizeof(float) +
                           core_.workspace_bytes(max_rows, max_length, n_threads);
  return std::max(full, step) + 4 * kCacheLine;
}

}  // namespace terrace
