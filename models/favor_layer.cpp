// SPDX-License-Identifier: Apache-2.0
#include "models/favor_layer.h"

#include "attention/kernels/attention_kernels.h"
#include "models/whole_rows.h"

namespace terrace {

FavorLayer::FavorLayer(const LayerBuilder& build, const std::string& name, const AttentionConfig& config,
                       std::size_t d_model, bool causal) {
  const std::size_t n_heads = build.config.n_heads;
  const std::size_t d_head = config.d_head ? config.d_head : d_model / n_heads;
  const std::size_t width = n_heads * d_head;
  q_ = build.projection(name + ".q", config.projection, d_model, width);
  k_ = build.projection(name + ".k", config.projection, d_model, width);
  v_ = build.projection(name + ".v", config.projection, d_model, width);
  out_ = build.projection(name + ".out", config.projection, width, d_model);
  const std::size_t n_features = config.softmax_features;
  const float* features = n_features ? build.binder.f32(name + ".features", {n_features, d_head}) : nullptr;
  core_ = FavorAttention(attention_kernels(build.isa), n_heads, d_head, features, n_features);
  if (causal) sums_ = build.state.recurrent.add(core_.state_floats());
}

void FavorLayer::forward(StepContext& context, ConstRows x, Rows y) const {
  Exec& exec = context.exec;
  const Workspace::Scope scope(exec.ws);
  const Rows q = take_rows(exec, x.n, q_.d_out());
  const Rows k = take_rows(exec, x.n, k_.d_out());
  const Rows v = take_rows(exec, x.n, v_.d_out());
  q_.forward(exec, x, q);
  k_.forward(exec, x, k);
  v_.forward(exec, x, v);
  const Rows attended = take_rows(exec, x.n, out_.d_in());
  core_.causal(exec, context.recurrent.slot(sums_), q, k, v, attended);
  out_.forward(exec, attended, y);
}

void FavorLayer::encode(EncodeContext& context, const Norm& norm, ConstRows x, Rows sum) const {
  const WholeRows q(x.n, q_.d_out(), "the encoder's queries");
  const WholeRows k(x.n, k_.d_out(), "the encoder's keys");
  const WholeRows v(x.n, v_.d_out(), "the encoder's values");
  context.for_blocks(x.n, [&](std::size_t begin, std::size_t count) {
    const Rows h = normed_block(context, norm, x, begin, count);
    q_.forward(context.exec, h, q.block(begin, count));
    k_.forward(context.exec, h, k.block(begin, count));
    v_.forward(context.exec, h, v.block(begin, count));
  });
  const WholeRows attended(x.n, out_.d_in(), "the encoder's attention output");
  core_.full(context.exec, q.rows(), k.rows(), v.rows(), context.n_real, attended.rows(), context.tick);
  add_output(context, norm.kernels(), &out_, attended.rows(), sum);
}

}  // namespace terrace
