// SPDX-License-Identifier: Apache-2.0
#include "models/state_plan.h"

#include <algorithm>

#include "attention/favor.h"
#include "attention/kernels/kv_page.h"
#include "attention/lsh_hash.h"
#include "engine/ceil_div.h"
#include "engine/depthwise_conv.h"
#include "models/session.h"
#include "models/token_cost.h"
#include "models/trax_sizes.h"

namespace terrace {
namespace {

/// Rows that a convolution over time keeps; with one module it is a dense layer (LayerBuilder::conv).
std::size_t tail_floats(std::size_t n_modules, std::size_t n_steps, std::size_t width) noexcept {
  return n_modules == 1 ? 0 : (n_steps - 1) * width;
}

void lsh(StateLayout& layout, const AttentionConfig& a, std::size_t n_heads, std::size_t d_k,
         std::size_t d_v) {
  if (a.sparse_format) layout.recurrent.add(tail_floats(a.n_modules, kStepsSeen, n_heads * d_k));
  if (!a.n_buckets.empty()) {
    layout.add_lsh({n_heads,
                    d_k,
                    d_v,
                    a.n_hashes,
                    LshBuckets{a.n_buckets}.total(),
                    std::size_t{a.n_hashes} * a.chunk_len * (1 + a.n_chunks_before),
                    {a.mem_len, a.drop_len}});
  }
  if (a.kind == AttentionConfig::Kind::kMixedLsh && a.std_length) {
    layout.add_kv({n_heads, d_k, d_v, a.std_length});
  }
}

void attention(StateLayout& layout, const AttentionConfig& a, std::size_t n_heads, std::size_t d_model) {
  using Kind = AttentionConfig::Kind;
  using Output = AttentionConfig::Output;
  const std::size_t d_head = a.d_head ? a.d_head : d_model / n_heads;
  const std::size_t d_value = a.d_value ? a.d_value : d_head;
  switch (a.kind) {
    case Kind::kDotProduct: {
      const std::size_t n_kv_heads = a.n_kv_heads ? a.n_kv_heads : n_heads;
      constexpr std::size_t kRows = DepthwiseConv::kTaps - 1;
      for (const std::size_t heads : {n_heads, n_kv_heads, n_kv_heads}) {
        if (a.use_dconv) layout.recurrent.add(kRows * heads * d_head);
      }
      layout.add_kv({n_kv_heads, d_head, d_head});
      return;
    }
    case Kind::kMultiplicativeConv: {
      const bool joins = a.v_concat != VConcat::kNone;
      const bool has_conv = a.output == Output::kConv || a.output == Output::kMultConv;
      layout.recurrent.add(tail_floats(a.n_modules, a.kernel_size, d_model));
      layout.recurrent.add(joins ? tail_floats(a.n_modules, a.kernel_size, 2 * d_model) : 0);
      layout.add_kv({n_heads, d_model / n_heads, d_model / n_heads});
      if (has_conv) layout.recurrent.add(tail_floats(a.n_modules, a.kernel_size, d_model));
      return;
    }
    case Kind::kSelf:
      layout.add_kv({n_heads, d_head, d_value});
      return;
    case Kind::kLsh:
    case Kind::kPureLsh:
    case Kind::kMixedLsh:
      return lsh(layout, a, n_heads, d_head, d_value);
    case Kind::kFavor: {
      const std::size_t n_features = a.softmax_features ? a.softmax_features : d_head;
      layout.recurrent.add(n_heads * FavorAttention::head_state_floats(d_head, n_features));
      return;
    }
  }
}

/// The part of the positions that a layer of this route holds, and of the tokens that run it.
double capacity_of(const ModelConfig& config, std::size_t route) noexcept {
  return route == kEveryToken ? 1.0 : config.decoder.depths->capacity;
}

/// A document that stands before the decoder's own tokens, in the same caches.
std::size_t joined_length(const ModelConfig& config, std::size_t encoder_length) noexcept {
  return config.family == Family::kTerraformer ? encoder_length : 0;
}

}  // namespace

StatePlan state_plan(const ModelConfig& config) {
  validate(config);
  StatePlan plan;
  StateLayout& layout = plan.decoder;
  const StackConfig& stack = config.decoder;
  for (const StackStep& step : stack_steps(config, stack)) {
    if (step.kind != StackStep::Kind::kBlock) continue;
    const std::size_t first_kv = layout.kv.size(), first_lsh = layout.lsh.size();
    const SruConfig& sru = stack.ff.sru;
    if (sru.n_layers) layout.recurrent.add(std::size_t{sru.n_layers} * sru.width);
    const AttentionConfig a = attention_of(config, stack, step.block, step.d_model);
    for (std::uint32_t j = 0; j < stack.n_attention; ++j) attention(layout, a, config.n_heads, step.d_model);
    if (config.family == Family::kTransformer) {
      const std::size_t d_head = step.d_model / config.n_heads;
      for (const std::size_t modules : {stack.cross.q_modules, stack.cross.out_modules}) {
        if (modules) layout.recurrent.add(tail_floats(modules, kStepsSeen, step.d_model));
      }
      plan.cross.push_back({config.n_heads, d_head, d_head});
    }
    if (is_routed(stack, step.block)) layout.add_route(first_kv, first_lsh);
  }
  return plan;
}

StateCost state_cost(const ModelConfig& config, const StatePlan& plan, const TokenPlace& place) {
  const StateLayout& layout = plan.decoder;
  StateCost cost{.bytes = layout.recurrent.size() * sizeof(float), .multiply_adds = 0};
  const auto add_slots = [&](const KvSpec& kv, std::size_t slots, double share) {
    const std::size_t slot_bytes = KvRows(place.kv_type, kv.d_k, kv.d_v).slot_bytes();
    cost.bytes += scaled(slots * kv.n_heads * slot_bytes, share);
    cost.multiply_adds += scaled(slots * config.n_heads * (kv.d_k + kv.d_v), share);
  };
  const std::size_t slots = place.position + 1 + joined_length(config, place.encoder_length);
  for (const KvSpec& kv : layout.kv) {
    if (kv.until > 0 && slots > kv.until) continue;
    const double capacity = capacity_of(config, kv.route);
    add_slots(kv, slots, capacity * capacity);
  }
  for (const LshSpec& lsh : layout.lsh) {
    const double capacity = capacity_of(config, lsh.route);
    const std::size_t newest = scaled(slots, capacity) > 0 ? scaled(slots, capacity) - 1 : 0;
    const std::size_t remembered = newest + 1 - lsh.window.begin(newest);
    const std::size_t read = place.exact_attention ? remembered : std::min(lsh.budget, remembered);
    // A key, a value, and a link of every round's list.
    const std::size_t slot_bytes =
        SlotRows(place.kv_type, lsh.d_k, lsh.d_v).slot_bytes() + lsh.n_hashes * sizeof(std::uint32_t);
    cost.bytes += scaled(read * lsh.n_heads * slot_bytes, capacity);
    cost.multiply_adds += scaled(read * lsh.n_heads * (lsh.d_k + lsh.d_v), capacity);
  }
  for (const KvSpec& kv : plan.cross) add_slots(kv, place.encoder_length, 1);
  return cost;
}

std::uint64_t session_bytes(const ModelConfig& config, const StatePlan& plan, KvType kv_type,
                            std::size_t context, std::size_t encoder_length) {
  const StateLayout& layout = plan.decoder;
  const std::size_t slots = context + joined_length(config, encoder_length);
  const auto pages = [&](std::size_t n_slots, std::size_t route) {
    return ceil_div(static_cast<std::size_t>(scaled(n_slots, capacity_of(config, route))), kPageSlots);
  };
  std::uint64_t bytes = 0;
  const auto add_cache = [&](const KvSpec& kv, std::size_t n_pages) {
    bytes += std::uint64_t{n_pages} * kv.n_heads * KvRows(kv_type, kv.d_k, kv.d_v).bytes();
  };
  for (const KvSpec& kv : layout.kv) {
    add_cache(kv, pages(kv.until > 0 ? std::min(slots, kv.until) : slots, kv.route));
  }
  for (const KvSpec& kv : plan.cross) add_cache(kv, pages(encoder_length, kEveryToken));
  for (const LshSpec& lsh : layout.lsh) {
    bytes += std::uint64_t{pages(slots, lsh.route)} * lsh.n_heads *
                 LshState::head_bytes(lsh.d_k, lsh.d_v, kv_type, lsh.n_hashes) +
             lsh.n_heads * lsh.n_hashes * lsh.n_buckets * sizeof(std::uint32_t);
  }
  const std::uint64_t recurrent = layout.recurrent.size() * sizeof(float);
  return bytes + recurrent * (2 + context / Session::kSnapshotInterval);
}

std::uint64_t pass_scratch_bytes(const ModelConfig& config) noexcept {
  const std::uint64_t floats = std::uint64_t{24} * config.d_model + std::uint64_t{2} * config.d_ff;
  return (Session::kSnapshotInterval * floats + config.vocab_size) * sizeof(float);
}

}  // namespace terrace
