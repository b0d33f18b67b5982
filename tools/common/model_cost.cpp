// SPDX-License-Identifier: Apache-2.0
#include "tools/common/model_cost.h"

#include <algorithm>
#include <array>

#include "models/network.h"
#include "models/token_cost.h"

namespace terrace::tools {
namespace {

/// The part of a tensor's touched elements that is in use at these widths; `planned` is the width of the
/// plan.
double share_in_use(const PlannedTensor& tensor, std::span<const std::uint32_t> widths,
                    double planned) noexcept {
  if (widths.empty() || !tensor.block || !tensor.by_width) return 1;
  return static_cast<double>(widths[widths.size() == 1 ? 0 : *tensor.block]) / planned;
}

std::uint64_t scaled(std::uint64_t value, double factor) noexcept {
  return static_cast<std::uint64_t>(static_cast<double>(value) * factor);
}

}  // namespace

LayerCost& LayerCost::operator+=(const LayerCost& other) noexcept {
  parameters += other.parameters;
  touched += other.touched;
  stored_bytes += other.stored_bytes;
  touched_bytes += other.touched_bytes;
  return *this;
}

double ModelCost::active_share() const noexcept {
  return static_cast<double>(total.touched) / static_cast<double>(total.parameters);
}

ModelCost model_cost(const Model& model, std::span<const std::uint32_t> widths) {
  ModelCost cost;
  const ModelConfig& config = model.config();
  const double planned = default_width(config.decoder.ff, config.d_ff);
  for (const PlannedTensor& tensor : tensor_plan(config)) {
    const TensorInfo* stored = model.file().find(tensor.name);
    if (stored == nullptr) continue;  // an optional bias that this model does without
    const DType dtype = weight_dtype(*stored).value_or(DType::kF32);
    const double share = share_in_use(tensor, widths, planned);
    const LayerCost part{.parameters = tensor.elements(),
                         .touched = scaled(tensor.touched, share),
                         .stored_bytes = stored_bytes(tensor, dtype),
                         .touched_bytes = scaled(touched_bytes(tensor, dtype), share)};
    cost.by_kind[static_cast<std::size_t>(tensor.kind)] += part;
    cost.total += part;
  }
  return cost;
}

DType main_dtype(const Model& model) {
  std::array<std::uint64_t, 4> elements{};
  for (const PlannedTensor& tensor : tensor_plan(model.config())) {
    const TensorInfo* stored = tensor.is_weight ? model.file().find(tensor.name) : nullptr;
    const auto dtype = stored ? weight_dtype(*stored) : std::nullopt;
    if (dtype) elements[static_cast<std::size_t>(*dtype)] += tensor.elements();
  }
  return static_cast<DType>(std::max_element(elements.begin(), elements.end()) - elements.begin());
}

std::uint64_t state_bytes_read(const Model& model, KvType kv_type, std::size_t position,
                               std::size_t encoder_length, bool exact_attention) {
  const ModelConfig& config = model.config();
  const StateLayout& layout = model.network().decoder_state();
  std::uint64_t bytes = layout.recurrent.size() * sizeof(float);
  const bool joined =
      config.family == Family::kTerraformer;  // the document stands before the decoder's own tokens
  const std::size_t slots = position + 1 + (joined ? encoder_length : 0);
  // A routed layer holds its share of the positions and is run for its share of the tokens.
  const auto capacity = [&](std::size_t route) {
    return route == kEveryToken ? 1.0 : config.decoder.depths->capacity;
  };
  for (const KvSpec& kv : layout.kv) {
    if (kv.until > 0 && slots > kv.until) continue;
    const std::uint64_t all = slots * kv.n_heads * KvRows(kv_type, kv.d_k, kv.d_v).slot_bytes();
    bytes += scaled(all, capacity(kv.route) * capacity(kv.route));
  }
  for (const LshSpec& lsh : layout.lsh) {
    const double share = capacity(lsh.route);
    const std::size_t newest = scaled(slots, share) > 0 ? scaled(slots, share) - 1 : 0;
    const std::size_t remembered = newest + 1 - lsh.window.begin(newest);
    const std::size_t read = exact_attention ? remembered : std::min(lsh.budget, remembered);
    // A key, a value, and a link of every round's list.
    const std::size_t slot_bytes =
        SlotRows(kv_type, lsh.d_k, lsh.d_v).slot_bytes() + lsh.n_hashes * sizeof(std::uint32_t);
    bytes += scaled(read * lsh.n_heads * slot_bytes, share);
  }
  for (const Block& block : model.network().decoder().blocks()) {
    if (!block.cross()) continue;
    const KvSpec kv = block.cross()->kv_spec();
    bytes += encoder_length * kv.n_heads * KvRows(kv_type, kv.d_k, kv.d_v).slot_bytes();
  }
  return bytes;
}

}  // namespace terrace::tools
