// SPDX-License-Identifier: Apache-2.0
#include "models/token_cut.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <numeric>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "attention/paged_attention.h"
#include "engine/exec.h"
#include "engine/prepared_rows.h"
#include "models/feed_forward_layer.h"
#include "models/widths.h"
#include "sparse/factored_dense.h"
#include "sparse/unit_sums.h"

namespace terrace {
namespace {

/// The matrix in a tensor: rows of `columns` elements.
struct Matrix {
  std::size_t index;  ///< of the tensor in the plan
  std::size_t rows, columns;
  DType dtype;

  std::size_t row_bytes() const noexcept { return dot_work(dtype, columns, 0, Packs::kNone); }
  std::size_t bytes() const noexcept { return rows * row_bytes(); }
};

class Cutter {
 public:
  Cutter(const ModelConfig& config, std::span<const StoredTensor> tensors, std::size_t n_threads, Isa isa)
      : config_(config), tensors_(tensors), n_threads_(n_threads), kernels_(dense_kernels(isa)) {
    for (std::size_t i = 0; i < tensors.size(); ++i) by_name_.emplace(tensors[i].planned.name, i);
    cut_.shared.resize(tensors.size(), false);
  }

  /// What the layers that come next are counted as, and the share of the tokens that run them.
  void enter(std::size_t stage, double share) noexcept {
    stage_ = stage;
    share_ = share;
  }
  const TokenCut& cut() const noexcept { return cut_; }

  void projection(const std::string& name, const ProjectionConfig& p);
  void linear(const std::string& tensor) { linear(matrix(tensor)); }
  void mult(const std::string& name);
  void conv(std::size_t n_modules, std::initializer_list<std::string> names);
  void feed_forward(const std::string& name, const FeedForwardConfig& f, std::size_t width);
  void attention(std::size_t slots, std::size_t n_kv_heads, std::size_t d_k, std::size_t d_v, KvType type);
  void heads(std::size_t n_heads, std::size_t work) { add(range(n_heads, 1, work)); }
  void head_each(std::size_t n_heads) { add(n_heads > 1); }

 private:
  /// A phase if it is shared; it reads these tensors.
  void add(bool shared, std::initializer_list<std::size_t> tensors = {}) {
    if (!shared) return;
    cut_.phases.by_stage[stage_] += share_;
    for (const std::size_t tensor : tensors) cut_.shared[tensor] = true;
  }
  /// Whether Exec::for_range() has more than one chunk.
  bool range(std::size_t n, std::size_t align, std::size_t work) const noexcept {
    return Exec::items_per_chunk(n, align, work, n_threads_) < n;
  }
  void linear(const Matrix& w) { add(range(w.rows, kCacheLine / sizeof(float), w.row_bytes()), {w.index}); }
  /// UnitSums over `n` units in groups of `per_group`: the pipeline, which reads `tensors`, and the sums of
  /// its runs.
  void unit_sums(std::size_t n, std::size_t per_group, std::initializer_list<std::size_t> tensors) {
    const std::size_t n_runs = std::min(ceil_div(n, per_group), n_threads_);
    add(n_runs > 1, tensors);
    add(range(config_.d_model, kQ4Columns, n_runs * sizeof(float)));
  }
  Matrix matrix(const std::string& tensor) const {
    const std::size_t index = by_name_.at(tensor);
    const auto& [planned, dtype] = tensors_[index];
    return {index, planned.elements() / planned.columns(), planned.columns(), dtype};
  }
  void linear_beside(const Matrix& w) {
    if (Linear::worth_a_phase_beside(w.bytes(), n_threads_)) return add(true, {w.index});
    linear(w);
  }
  std::vector<Matrix> sru_maps(const std::string& name, const FeedForwardConfig& f) const;
  void dense_feed_forward(const std::string& name, const FeedForwardConfig& f, std::size_t width);

  const ModelConfig& config_;
  std::span<const StoredTensor> tensors_;
  std::size_t n_threads_;
  const DenseKernels& kernels_;
  std::unordered_map<std::string_view, std::size_t> by_name_;
  TokenCut cut_;
  std::size_t stage_ = 0;
  double share_ = 1;
};

void Cutter::mult(const std::string& name) {
  const Matrix gate = matrix(name + ".gate"), proj = matrix(name + ".proj");
  const Packs packs = module_packs_for(kernels_, proj.dtype, gate.rows);
  constexpr std::size_t kGroup = FactoredDense::kModulesPerThread;
  if (FactoredDense::goes_by_modules(gate.rows, proj.bytes(), n_threads_)) {
    const std::size_t work = kGroup * FactoredDense::work_per_module(proj.columns, proj.rows, packs);
    return add(Exec::one_chunk_each(gate.rows / kGroup, work, n_threads_) > 1, {gate.index, proj.index});
  }
  add(range(gate.rows, kGroup, proj.columns * sizeof(float)), {gate.index});
  add(range(proj.rows, kPackRows, dot_work(proj.dtype, proj.columns, gate.rows, packs)), {proj.index});
}

/// Convolutions that share a phase.
void Cutter::conv(std::size_t n_modules, std::initializer_list<std::string> names) {
  std::size_t n_blocks = 0, work = 0;
  for (const std::string& name : names) {
    const Matrix w = matrix(name + ".weight");
    const std::size_t blocks = ceil_div(w.rows, kPackRows);
    const Packs packs = module_packs_for(kernels_, w.dtype, n_modules);
    n_blocks += blocks;
    work += blocks * kPackRows * dot_work(w.dtype, w.columns, n_modules, packs);
  }
  const std::size_t per_block = n_blocks > 0 ? work / n_blocks : 0;
  if (Exec::one_chunk_each(n_blocks, per_block, n_threads_) <= 1) return;
  add(true);
  for (const std::string& name : names) cut_.shared[matrix(name + ".weight").index] = true;
}

void Cutter::projection(const std::string& name, const ProjectionConfig& p) {
  switch (p.kind) {
    case ProjectionConfig::Kind::kDense:
      return linear(name + ".weight");
    case ProjectionConfig::Kind::kMult:
      return mult(name);
    case ProjectionConfig::Kind::kMultModular: {
      const Matrix shared = matrix(name + ".shared");
      const Packs packs = module_packs_for(kernels_, shared.dtype, p.n_modules);
      add(range(p.n_modules, FactoredDense::kModulesPerThread, shared.columns * sizeof(float)));
      add(range(shared.rows, kPackRows, dot_work(shared.dtype, shared.columns, p.n_modules, packs)),
          {shared.index});
      return linear(name + ".modules");
    }
    case ProjectionConfig::Kind::kConv:
      return conv(p.n_modules, {name});
    case ProjectionConfig::Kind::kLocal:
      return linear(name + ".weight");
    case ProjectionConfig::Kind::kLowRank:
      linear(name + ".down.weight");
      return linear(name + ".up.weight");
  }
}

void Cutter::dense_feed_forward(const std::string& name, const FeedForwardConfig& f, std::size_t width) {
  constexpr std::size_t kVectors = 64;  // FeedForward cuts its units there
  const Matrix up = matrix(name + ".w1.weight");
  const Matrix gate = f.gated ? matrix(name + ".gate.weight") : up;
  const std::size_t of_gate = f.gated ? gate.row_bytes() : 0;
  add(range(width, kVectors, up.row_bytes() + of_gate), {up.index, gate.index});
  Matrix down = matrix(name + ".w2.weight");
  down.columns = width;
  linear(down);
}

void Cutter::feed_forward(const std::string& name, const FeedForwardConfig& f, std::size_t width) {
  using Kind = FeedForwardConfig::Kind;
  const auto per_stage = [&](LayerKind kind) { stage_ = static_cast<std::size_t>(kind); };
  const std::vector<Matrix> sru = sru_maps(name, f);
  per_stage(LayerKind::kFeedForward);
  if (f.kind == Kind::kDense) {
    dense_feed_forward(name, f, width);
  } else if (f.kind == Kind::kSparse) {
    per_stage(LayerKind::kController);
    const Matrix down = matrix(name + ".controller.down");
    const std::size_t sru_bytes = std::accumulate(
        sru.begin(), sru.end(), std::size_t{0}, [](std::size_t n, const Matrix& w) { return n + w.bytes(); });
    const bool beside = !sru.empty() && FeedForwardLayer::sru_beside_controller(sru_bytes, down.bytes());
    beside ? linear_beside(down) : linear(down);
    per_stage(LayerKind::kFeedForward);
    const Matrix up = matrix(name + ".controller.up");
    unit_sums(width / f.block_size, UnitSums::group_of(up.rows / f.block_size),
              {up.index, matrix(name + ".controller.bias").index, matrix(name + ".units").index});
    if (beside) {  // the threads divide both between them
      for (const Matrix& map : sru) cut_.shared[map.index] = true;
      return;
    }
  } else {
    const Matrix units = matrix(name + ".units");
    const std::size_t of_expert = units.rows / (std::size_t{f.n_experts} * (f.gated ? 3 : 2));
    const std::size_t n = f.kind == Kind::kExperts ? width : of_expert;
    per_stage(LayerKind::kController);
    if (n < of_expert * f.n_experts) linear(name + ".router");
    per_stage(LayerKind::kFeedForward);
    unit_sums(n, UnitSums::group_of(n), {units.index});
  }
  per_stage(LayerKind::kSru);
  for (const Matrix& map : sru) linear(map);
}

/// The maps of the SRU path, in order; none without one.
std::vector<Matrix> Cutter::sru_maps(const std::string& name, const FeedForwardConfig& f) const {
  if (f.sru.n_layers == 0) return {};
  std::vector<Matrix> maps{matrix(name + ".sru.in.weight")};
  for (std::uint32_t k = 0; k < f.sru.n_layers; ++k) {
    maps.push_back(matrix(fmt::format("{}.sru.cells.{}.weight", name, k)));
  }
  maps.push_back(matrix(name + ".sru.out.weight"));
  return maps;
}

void Cutter::attention(std::size_t slots, std::size_t n_kv_heads, std::size_t d_k, std::size_t d_v,
                       KvType type) {
  const std::size_t slot_bytes = n_kv_heads * KvRows(type, d_k, d_v).slot_bytes();
  const std::size_t work =
      PagedAttention::work_of(slots, config_.n_heads * (d_k + d_v), slot_bytes, n_kv_heads);
  const bool can_cut = n_kv_heads > 1 || slots > PagedAttention::kSegmentPages * kPageSlots;
  add(n_threads_ > 1 && can_cut && work >= 2 * Exec::kMinWorkPerChunk);
}

/// The maps and the core of one attention sublayer; the stage is that of attention.
void cut_attention(Cutter& cutter, const ModelConfig& config, const std::string& name,
                   const AttentionConfig& a, std::size_t d_model, const TokenPlace& place, std::size_t slots,
                   double share) {
  using Kind = AttentionConfig::Kind;
  using Output = AttentionConfig::Output;
  const std::size_t n_heads = config.n_heads;
  const std::size_t d_head = a.d_head ? a.d_head : d_model / n_heads;
  const std::size_t d_value = a.d_value ? a.d_value : d_head;
  const auto core = [&](auto&& add) {
    cutter.enter(kStateStage, share);
    add();
    cutter.enter(static_cast<std::size_t>(LayerKind::kAttention), share);
  };
  const bool hashed = a.kind == Kind::kLsh || a.kind == Kind::kPureLsh || a.kind == Kind::kMixedLsh;
  if (a.kind == Kind::kMultiplicativeConv) {
    const auto part = [&](const char* suffix) { return name + suffix; };
    cutter.mult(part(".shared"));
    const bool joins = a.v_concat != VConcat::kNone;
    if (joins) {
      a.share_qk ? cutter.conv(a.n_modules, {part(".q")})
                 : cutter.conv(a.n_modules, {part(".q"), part(".k")});
      cutter.conv(a.n_modules, {part(".v")});
    } else {
      a.share_qk ? cutter.conv(a.n_modules, {part(".q"), part(".v")})
                 : cutter.conv(a.n_modules, {part(".q"), part(".k"), part(".v")});
    }
    core([&] { cutter.attention(slots, n_heads, d_model / n_heads, d_model / n_heads, place.kv_type); });
    if (a.output == Output::kMult || a.output == Output::kMultConv) cutter.mult(part(".out_mult"));
    if (a.output == Output::kConv || a.output == Output::kMultConv) {
      cutter.conv(a.n_modules, {part(".out_conv")});
    }
    return;
  }
  if (hashed && a.sparse_format) {
    cutter.mult(name + ".shared");
    if (a.n_weights == 2) {
      cutter.conv(a.n_modules, {name + ".qk", name + ".v"});
    } else {
      cutter.conv(a.n_modules, {name + ".q", name + ".k", name + ".v"});
    }
    return core([&] { cutter.head_each(n_heads); });
  }
  const bool shared = hashed ? a.kind == Kind::kLsh || a.n_weights == 2 : a.kind == Kind::kSelf && a.share_qk;
  const ProjectionConfig p =
      a.kind == Kind::kDotProduct || a.kind == Kind::kFavor ? a.projection : ProjectionConfig();
  cutter.projection(name + (hashed && shared ? ".qk" : ".q"), p);
  if (!shared) cutter.projection(name + ".k", p);
  cutter.projection(name + ".v", p);
  core([&] {
    if (hashed) return cutter.head_each(n_heads);
    if (a.kind == Kind::kFavor) {
      const std::size_t n_features = a.softmax_features ? a.softmax_features : d_head;
      return cutter.heads(n_heads, 2 * n_features * d_head);
    }
    const std::size_t n_kv_heads = a.n_kv_heads ? a.n_kv_heads : n_heads;
    cutter.attention(slots, n_kv_heads, d_head, d_value, place.kv_type);
  });
  cutter.projection(name + ".out", p);
}

void cut_cross(Cutter& cutter, const ModelConfig& config, const std::string& name, std::size_t d_model,
               const TokenPlace& place, double share) {
  const CrossAttentionConfig& c = config.decoder.cross;
  const auto part = [&](const std::string& of, std::size_t modules) {
    if (modules == 0) return cutter.linear(of + ".weight");
    cutter.mult(of);
    cutter.conv(modules, {of + "_conv"});
  };
  part(name + ".q", c.q_modules);
  cutter.enter(kStateStage, share);
  const std::size_t d_head = d_model / config.n_heads;
  cutter.attention(place.encoder_length, config.n_heads, d_head, d_head, place.kv_type);
  cutter.enter(static_cast<std::size_t>(LayerKind::kAttention), share);
  if (c.has_output) part(name + ".out", c.out_modules);
}

}  // namespace

TokenCut token_cut(const ModelConfig& config, std::span<const StoredTensor> tensors,
                   std::span<const std::uint32_t> widths, const TokenPlace& place, std::size_t n_threads,
                   Isa isa) {
  if (n_threads <= 1) return {{}, std::vector<bool>(tensors.size(), false)};
  Cutter cutter(config, tensors, n_threads, isa);
  const auto stage = [](LayerKind kind) { return static_cast<std::size_t>(kind); };
  const StackConfig& stack = config.decoder;
  const bool joined = config.family == Family::kTerraformer;
  const std::size_t slots = place.position + 1 + (joined ? place.encoder_length : 0);
  for (const StackStep& step : stack_steps(config, stack)) {
    const std::string block = fmt::format("decoder.blocks.{}", step.block);
    if (step.kind == StackStep::Kind::kForget && stack.forget_dense) {
      cutter.enter(stage(LayerKind::kOther), 1);
      cutter.linear(block + ".forget.weight");
    }
    if (step.kind != StackStep::Kind::kBlock) continue;
    const bool routed = is_routed(stack, step.block);
    const double share = routed ? stack.depths->capacity : 1.0;
    if (routed && stack.depths->predictor_width > 0) {
      cutter.enter(stage(LayerKind::kController), 1);
      cutter.linear(block + ".depth.predictor.in.weight");
    }
    cutter.enter(stage(LayerKind::kAttention), share);
    const AttentionConfig a = attention_of(config, stack, step.block, step.d_model);
    for (std::uint32_t j = 0; j < stack.n_attention; ++j) {
      cut_attention(cutter, config, fmt::format("{}.attention.{}", block, j), a, step.d_model, place,
                    routed ? static_cast<std::size_t>(share * static_cast<double>(slots)) : slots, share);
    }
    if (config.family == Family::kTransformer) {
      cut_cross(cutter, config, block + ".cross", step.d_model, place, share);
    }
    const std::size_t width =
        widths.empty() ? default_width(stack.ff, step.d_ff) : width_of(widths, step.block);
    cutter.feed_forward(block + ".ff", stack.ff, width);
  }
  cutter.enter(stage(LayerKind::kLogits), 1);
  cutter.projection("decoder.logits", config.logits);
  return cutter.cut();
}

}  // namespace terrace
