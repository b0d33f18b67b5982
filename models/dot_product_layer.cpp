// SPDX-License-Identifier: Apache-2.0
#include "models/dot_product_layer.h"

#include "attention/kernels/attention_kernels.h"
#include "models/rows.h"

namespace terrace {

DotProductLayer::DotProductLayer(const LayerBuilder& build, const std::string& name,
                                 const AttentionConfig& config, std::size_t d_model, bool causal) {
  const std::size_t n_heads = build.config.n_heads;
  const std::size_t n_kv_heads = config.n_kv_heads ? config.n_kv_heads : n_heads;
  const std::size_t d_head = config.d_head ? config.d_head : d_model / n_heads;
  const std::size_t d_q = n_heads * d_head;
  const std::size_t d_kv = n_kv_heads * d_head;
  q_ = build.projection(name + ".q", config.projection, d_model, d_q);
  k_ = build.projection(name + ".k", config.projection, d_model, d_kv);
  v_ = build.projection(name + ".v", config.projection, d_model, d_kv);
  out_ = build.projection(name + ".out", config.projection, d_q, d_model);
  if (config.use_dconv) {
    const std::array<std::pair<const char*, std::size_t>, 3> parts = {
        {{".q.dconv", d_q}, {".k.dconv", d_kv}, {".v.dconv", d_kv}}};
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const auto& [part, width] = parts[i];
      const float* weight = build.binder.f32(name + part, {DepthwiseConv::kTaps, width});
      dconv_[i] = DepthwiseConv(weight, width, build.state.recurrent);
    }
  }
  if (config.rotary) {
    rotary_ = build.rotary(d_head, *config.rotary);
  }
  const AttentionKernels& kernels = attention_kernels(build.isa);
  if (causal) {
    causal_ = CausalAttention(kernels, n_heads, n_kv_heads, d_head, d_head);
    kv_index_ = build.state.add_kv({n_kv_heads, d_head, d_head});
  } else {
    full_ = FullAttention(kernels, n_heads, n_kv_heads, d_head, d_head);
  }
}

void DotProductLayer::forward(StepContext& context, ConstRows x, Rows y) const {
  Exec& exec = context.exec;
  const Workspace::Scope scope(exec.ws);
  const Rows q = take_rows(exec, x.n, q_.d_out());
  const Rows k = take_rows(exec, x.n, k_.d_out());
  const Rows v = take_rows(exec, x.n, v_.d_out());
  q_.forward(exec, x, q);
  k_.forward(exec, x, k);
  v_.forward(exec, x, v);
  if (dconv_[0]) {
    dconv_[0].forward(exec, context.recurrent, q);
    dconv_[1].forward(exec, context.recurrent, k);
    dconv_[2].forward(exec, context.recurrent, v);
  }
  if (rotary_) {
    rotary_->apply(exec, q, context.positions);
    rotary_->apply(exec, k, context.positions);
  }
  KvCache& cache = context.state.kv(kv_index_);
  const Rows attended = take_rows(exec, x.n, out_.d_in());
  causal_.step(exec, cache, q, k, v, attended);
  out_.forward(exec, attended, y);
}

void DotProductLayer::encode(EncodeContext& context, const Norm& norm, ConstRows x, Rows sum) const {
  Exec& exec = context.exec;
  const auto normed = [&](std::size_t begin, std::size_t count) {
    const Rows h = take_rows(exec, count, x.width);
    norm.forward(exec, x.slice(begin, count), h);
    return h;
  };
  KvCache cache = full_.make_cache(KvType::kF32, context.n_real);
  // Padding keys have weight 0, so they are not stored at all.
  context.for_blocks(context.n_real, [&](std::size_t begin, std::size_t count) {
    const Rows h = normed(begin, count);
    const Rows k = take_rows(exec, count, k_.d_out());
    const Rows v = take_rows(exec, count, v_.d_out());
    k_.forward(exec, h, k);
    v_.forward(exec, h, v);
    if (rotary_) rotary_->apply(exec, k, context.positions.from(begin));
    cache.append(exec, k, v);
  });
  context.for_blocks(x.n, [&](std::size_t begin, std::size_t count) {
    const Rows h = normed(begin, count);
    const Rows q = take_rows(exec, count, q_.d_out());
    q_.forward(exec, h, q);
    if (rotary_) rotary_->apply(exec, q, context.positions.from(begin));
    const Rows attended = take_rows(exec, count, out_.d_in());
    full_.forward(exec, cache, q, attended);
    const Rows y = take_rows(exec, count, sum.width);
    out_.forward(exec, attended, y);
    add_rows(norm.kernels(), exec, y, sum.slice(begin, count));
  });
}

}  // namespace terrace
