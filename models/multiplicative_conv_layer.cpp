// SPDX-License-Identifier: Apache-2.0
#include "models/multiplicative_conv_layer.h"

#include "attention/kernels/attention_kernels.h"
#include "engine/task_ref.h"
#include "models/rows.h"
#include "models/trax_sizes.h"

namespace terrace {

SparseQkv MultiplicativeConvLayer::build_qkv(const LayerBuilder& build, const std::string& name,
                                             const AttentionConfig& config, std::size_t d) {
  const std::size_t s = config.n_modules;
  const std::size_t steps = config.kernel_size;
  const std::size_t v_in = config.v_concat == VConcat::kNone ? d : 2 * d;
  const FactoredDense shared = build.factored(name + ".shared", d, d, s);
  const LocallyConvDense q = build.conv(name + ".q", d, d, s, kModulesSeenByQk, steps);
  const LocallyConvDense k =
      config.share_qk ? LocallyConvDense() : build.conv(name + ".k", d, d, s, kModulesSeenByQk, steps);
  const LocallyConvDense v = build.conv(name + ".v", v_in, d, s, kModulesSeenByV, steps);
  return {shared, q, k, v, config.v_concat, build.state.recurrent};
}

MultiplicativeConvLayer::MultiplicativeConvLayer(const LayerBuilder& build, const std::string& name,
                                                 const AttentionConfig& config, std::size_t d)
    : qkv_(build_qkv(build, name, config, d)) {
  using Output = AttentionConfig::Output;
  const std::size_t n_heads = build.config.n_heads;
  const std::size_t d_head = d / n_heads;
  causal_ = CausalAttention(attention_kernels(build.isa), n_heads, n_heads, d_head, d_head);
  kv_index_ = build.state.add_kv({n_heads, d_head, d_head});
  if (config.output == Output::kNone) return;
  const bool has_mult = config.output != Output::kConv;
  const bool has_conv = config.output != Output::kMult;
  const std::size_t s = config.n_modules;
  out_.emplace(has_mult ? build.factored(name + ".out_mult", d, d, s) : FactoredDense(),
               has_conv ? build.conv(name + ".out_conv", d, d, s, kModulesSeenByQk, config.kernel_size)
                        : LocallyConvDense(),
               build.state.recurrent);
}

void MultiplicativeConvLayer::forward(StepContext& context, ConstRows x, Rows y) const {
  Exec& exec = context.exec;
  const Workspace::Scope scope(exec.ws);
  const Rows q = take_rows(exec, x.n, x.width);
  const Rows k = take_rows(exec, x.n, x.width);
  const Rows v = take_rows(exec, x.n, x.width);
  KvCache& cache = context.state.kv(kv_index_);
  const auto make_alone = [&] {
    const ProfileZone zone(exec.profile, Zone::kProjections);
    ThreadTeam nobody_else(1);
    Exec alone{nobody_else, exec.ws, exec.profile, exec.observer};
    qkv_.forward(alone, x, context.recurrent, q, k, v);
  };
  const bool alone = x.n == 1 && qkv_.works_alone(exec.team.size());
  if (!alone) qkv_.forward(exec, x, context.recurrent, q, k, v);
  const TaskRef make = alone ? TaskRef(make_alone) : TaskRef();
  if (!out_) {
    causal_.step(exec, cache, q, k, v, y, make);
    return;
  }
  const Rows attended = take_rows(exec, x.n, x.width);
  causal_.step(exec, cache, q, k, v, attended, make);
  out_->forward(exec, attended, context.recurrent, y);
}

}  // namespace terrace
