// SPDX-License-Identifier: Apache-2.0
#include "models/self_attention_layer.h"

#include <algorithm>

#include "attention/kernels/attention_kernels.h"
#include "models/whole_rows.h"

namespace terrace {

SelfAttentionLayer::SelfAttentionLayer(const LayerBuilder& build, const std::string& name,
                                       const AttentionConfig& config, std::size_t d_model, bool causal)
    : causal_(causal) {
  const std::size_t n_heads = build.config.n_heads;
  const std::size_t d_k = config.d_head ? config.d_head : d_model / n_heads;
  const std::size_t d_v = config.d_value ? config.d_value : d_k;
  q_ = build.linear(name + ".q", d_model, n_heads * d_k);
  if (!config.share_qk) k_ = build.linear(name + ".k", d_model, n_heads * d_k);
  v_ = build.linear(name + ".v", d_model, n_heads * d_v);
  out_ = build.linear(name + ".out", n_heads * d_v, d_model);
  core_ = SelfAttention(attention_kernels(build.isa), {.n_heads = n_heads,
                                                       .d_k = d_k,
                                                       .d_v = d_v,
                                                       .share_qk = config.share_qk,
                                                       .chunk_len = config.chunk_len,
                                                       .n_chunks_before = config.n_chunks_before,
                                                       .n_chunks_after = config.n_chunks_after,
                                                       .mem_len = config.mem_len,
                                                       .drop_len = config.drop_len});
  // Without chunks every row sees the whole past in both forms. With them a decoder forgets by its memory
  // window, which is the chunk rule only for Trax's default sizes.
  const std::size_t chunk_window = config.chunk_len * (std::size_t{1} + config.n_chunks_before);
  const bool default_window = (config.mem_len == 0 || config.mem_len == chunk_window) &&
                              (config.drop_len == 0 || config.drop_len == config.chunk_len);
  steps_equal_evaluation_ =
      config.chunk_len == 0 ? config.mem_len == 0 : config.n_chunks_after == 0 && default_window;
  if (causal) kv_index_ = build.state.add_kv({n_heads, d_k, d_v});
}

std::size_t SelfAttentionLayer::length_multiple() const noexcept {
  return std::max<std::size_t>(1, core_.config().chunk_len);
}

void SelfAttentionLayer::forward(StepContext& context, ConstRows x, Rows y) const {
  Exec& exec = context.exec;
  const Workspace::Scope scope(exec.ws);
  const Rows q = take_rows(exec, x.n, q_.d_out());
  const Rows v = take_rows(exec, x.n, v_.d_out());
  q_.forward(exec, x, q);
  v_.forward(exec, x, v);
  ConstRows k;
  if (k_) {
    const Rows projected = take_rows(exec, x.n, k_.d_out());
    k_.forward(exec, x, projected);
    k = projected;
  }
  const Rows attended = take_rows(exec, x.n, out_.d_in());
  core_.step(exec, context.state.kv(kv_index_), q, k, v, attended);
  out_.forward(exec, attended, y);
}

void SelfAttentionLayer::encode(EncodeContext& context, const Norm& norm, ConstRows x, Rows sum) const {
  const WholeRows q(x.n, q_.d_out(), "the encoder's queries");
  const WholeRows k(k_ ? x.n : 0, q_.d_out(), "the encoder's keys");
  const WholeRows v(x.n, v_.d_out(), "the encoder's values");
  context.for_blocks(x.n, [&](std::size_t begin, std::size_t count) {
    const Rows h = normed_block(context, norm, x, begin, count);
    q_.forward(context.exec, h, q.block(begin, count));
    if (k_) k_.forward(context.exec, h, k.block(begin, count));
    v_.forward(context.exec, h, v.block(begin, count));
  });
  const WholeRows attended(x.n, out_.d_in(), "the encoder's attention output");
  core_.full(context.exec, q.rows(), k_ ? ConstRows(k.rows()) : ConstRows(), v.rows(), context.n_real,
             causal_, attended.rows(), context.tick);
  add_output(context, norm.kernels(), &out_, attended.rows(), sum);
}

}  // namespace terrace
