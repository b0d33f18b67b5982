// SPDX-License-Identifier: Apache-2.0
#include "models/cross_attention_layer.h"

#include "attention/kernels/attention_kernels.h"
#include "models/rows.h"
#include "models/trax_sizes.h"

namespace terrace {

CrossAttentionLayer::CrossAttentionLayer(const LayerBuilder& build, const std::string& name,
                                         const CrossAttentionConfig& config, std::size_t d) {
  const auto sparse = [&](std::optional<SparseAttentionOutput>& layer, const std::string& part,
                          std::size_t modules) {
    layer.emplace(build.factored(part, d, d, modules),
                  build.conv(part + "_conv", d, d, modules, kModulesSeenByQk, kStepsSeen),
                  build.state.recurrent);
  };
  if (config.q_modules) {
    sparse(sparse_q_, name + ".q", config.q_modules);
  } else {
    q_ = build.linear(name + ".q", d, d);
  }
  k_ = build.linear(name + ".k", d, d);
  v_ = build.linear(name + ".v", d, d);
  if (config.has_output && config.out_modules) {
    sparse(sparse_out_, name + ".out", config.out_modules);
  } else if (config.has_output) {
    out_ = build.linear(name + ".out", d, d);
  }
  const std::size_t n_heads = build.config.n_heads;
  full_ = FullAttention(attention_kernels(build.isa), n_heads, n_heads, d / n_heads, d / n_heads);
}

void CrossAttentionLayer::project_encoder(Exec& exec, ConstRows rows, KvCache& cache) const {
  const Workspace::Scope scope(exec.ws);
  const Rows k = take_rows(exec, rows.n, k_.d_out());
  const Rows v = take_rows(exec, rows.n, v_.d_out());
  k_.forward(exec, rows, k);
  v_.forward(exec, rows, v);
  cache.append(exec, k, v);
}

void CrossAttentionLayer::forward(Exec& exec, ConstRows x, const RecurrentBlock& recurrent,
                                  const KvCache& cache, Rows y) const {
  const ProfileZone zone(exec.profile, Zone::kProjections);
  const Workspace::Scope scope(exec.ws);
  const Rows q = take_rows(exec, x.n, k_.d_out());
  if (sparse_q_) {
    sparse_q_->forward(exec, x, recurrent, q);
  } else {
    q_.forward(exec, x, q);
  }
  const bool has_output = sparse_out_ || out_;
  const Rows attended = has_output ? take_rows(exec, x.n, k_.d_out()) : y;
  full_.forward(exec, cache, q, attended);
  if (sparse_out_) {
    sparse_out_->forward(exec, attended, recurrent, y);
  } else if (out_) {
    out_.forward(exec, attended, y);
  }
}

}  // namespace terrace
