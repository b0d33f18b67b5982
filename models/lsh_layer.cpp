// SPDX-License-Identifier: Apache-2.0
#include "models/lsh_layer.h"

#include <algorithm>
#include <numeric>

#include "attention/kernels/attention_kernels.h"
#include "models/trax_sizes.h"
#include "models/whole_rows.h"

namespace terrace {

LshLayer::Maps LshLayer::build_maps(const LayerBuilder& build, const std::string& name,
                                    const AttentionConfig& config, std::size_t d_model, std::size_t d_qk,
                                    std::size_t d_value) {
  Maps maps;
  const bool shared = config.kind == AttentionConfig::Kind::kLsh || config.n_weights == 2;
  const std::string q = name + (shared ? ".qk" : ".q");
  if (config.sparse_format) {
    const std::size_t s = config.n_modules;
    const FactoredDense front = build.factored(name + ".shared", d_model, d_qk, s);
    const LocallyConvDense conv_q = build.conv(q, d_qk, d_qk, s, kModulesSeenByQk, kStepsSeen);
    const LocallyConvDense conv_k =
        shared ? LocallyConvDense() : build.conv(name + ".k", d_qk, d_qk, s, kModulesSeenByQk, kStepsSeen);
    const LocallyConvDense conv_v = build.conv(name + ".v", d_qk, d_value, s, kModulesSeenByV, kStepsSeen);
    maps.sparse.emplace(front, conv_q, conv_k, conv_v, VConcat::kNone, build.state.recurrent);
    return maps;
  }
  maps.q = build.linear(q, d_model, d_qk);
  if (!shared) maps.k = build.linear(name + ".k", d_model, d_qk);
  maps.v = build.linear(name + ".v", d_model, d_value);
  maps.out = build.linear(name + ".out", d_value, d_model);
  return maps;
}

LshLayer::LshLayer(const LayerBuilder& build, const std::string& name, const AttentionConfig& config,
                   std::size_t d_model, bool causal)
    : causal_(causal) {
  const std::size_t n_heads = build.config.n_heads;
  const std::size_t d_k = config.d_head ? config.d_head : d_model / n_heads;
  const std::size_t d_v = config.d_value ? config.d_value : d_k;
  d_qk_ = n_heads * d_k;
  d_value_ = n_heads * d_v;
  maps_ = build_maps(build, name, config, d_model, d_qk_, d_value_);
  recurrent_floats_ = build.state.recurrent.size();
  if (config.rotary) rotary_ = build.rotary(d_qk_, *config.rotary);

  const LshConfig lsh{.n_heads = n_heads,
                      .d_k = d_k,
                      .d_v = d_v,
                      .chunk_len = config.chunk_len,
                      .n_chunks_before = config.n_chunks_before,
                      .n_chunks_after = config.n_chunks_after,
                      .n_hashes = config.n_hashes,
                      .n_buckets = config.n_buckets,
                      .mem_len = config.mem_len,
                      .drop_len = config.drop_len};
  const std::string rotations = name + ".rotations";
  const std::span<const std::uint64_t> shape = build.binder.shape_of(rotations);
  TERRACE_CHECK(shape.size() == 4, kBadFile, "tensor '" + rotations + "' must have 4 axes");
  const std::size_t n_rotations = shape[2];
  const AttentionKernels& kernels = attention_kernels(build.isa);
  core_ = LshAttention(
      kernels, lsh, build.binder.f32(rotations, {n_heads, config.n_hashes, n_rotations, d_k}), n_rotations);
  if (config.kind == AttentionConfig::Kind::kMixedLsh) std_length_ = config.std_length;
  if (std_length_ && causal) standard_ = CausalAttention(kernels, n_heads, n_heads, d_k, d_v);
  if (std_length_ && !causal) standard_full_ = FullAttention(kernels, n_heads, n_heads, d_k, d_v);
  if (!causal) return;
  // Without explicit buckets there is no token-by-token rule; such a model can only be evaluated whole.
  if (!config.n_buckets.empty()) {
    const std::uint32_t n_buckets = LshBuckets{config.n_buckets}.total();
    lsh_index_ =
        build.state.add_lsh({n_heads, d_k, d_v, config.n_hashes, n_buckets, core_.budget(), core_.window()});
  }
  if (std_length_) kv_index_ = build.state.add_kv({n_heads, d_k, d_v, std_length_});
}

std::size_t LshLayer::length_multiple() const noexcept {
  const std::size_t chunk = core_.config().chunk_len;
  return chunk / std::gcd(chunk, core_.config().n_hashes);
}

void LshLayer::project(Exec& exec, ConstRows x, RowPositions positions, const RecurrentBlock& recurrent,
                       Rows qk, Rows v) const {
  const Workspace::Scope scope(exec.ws);
  Rows k;
  if (maps_.sparse) {
    if (!maps_.sparse->shares_qk()) k = take_rows(exec, x.n, d_qk_);
    maps_.sparse->forward(exec, x, recurrent, qk, k, v);
  } else {
    maps_.q.forward(exec, x, qk);
    if (maps_.k) {
      k = take_rows(exec, x.n, d_qk_);
      maps_.k.forward(exec, x, k);
    }
    maps_.v.forward(exec, x, v);
  }
  if (k.data) {
    for (std::size_t t = 0; t < x.n; ++t) {
      for (std::size_t c = 0; c < d_qk_; ++c) qk.row(t)[c] = (qk.row(t)[c] + k.row(t)[c]) / 2;
    }
  }
  if (rotary_) rotary_->apply(exec, qk, positions);
}

void LshLayer::forward(StepContext& context, ConstRows x, Rows y) const {
  TERRACE_DCHECK(!core_.config().n_buckets.empty());  // a session of such a model is refused
  Exec& exec = context.exec;
  const Workspace::Scope scope(exec.ws);
  const Rows qk = take_rows(exec, x.n, d_qk_);
  const Rows v = take_rows(exec, x.n, d_value_);
  project(exec, x, context.positions, context.recurrent, qk, v);
  Rows attended = maps_.out ? take_rows(exec, x.n, d_value_) : y;
  core_.step(exec, context.state.lsh(lsh_index_), qk, v, attended);
  std::size_t n = 0;  // rows that standard attention still serves
  while (n < x.n && context.positions[n] < std_length_) ++n;
  if (n > 0) {
    KvCache& cache = context.state.kv(kv_index_);
    standard_.step(exec, cache, qk.slice(0, n), qk.slice(0, n), v.slice(0, n), attended.slice(0, n));
  }
  if (maps_.out) maps_.out.forward(exec, attended, y);
}

void LshLayer::encode_standard(EncodeContext& context, ConstRows qk, ConstRows v, Rows attended) const {
  Exec& exec = context.exec;
  const std::size_t n_keys = causal_ ? qk.n : context.n_real;
  KvCache cache =
      causal_ ? standard_.make_cache(KvType::kF32, n_keys) : standard_full_.make_cache(KvType::kF32, n_keys);
  if (causal_) {
    context.for_blocks(qk.n, [&](std::size_t begin, std::size_t count) {
      const ConstRows queries = qk.slice(begin, count);
      standard_.step(exec, cache, queries, queries, v.slice(begin, count), attended.slice(begin, count));
    });
  } else {
    for (std::size_t begin = 0; begin < n_keys; begin += EncodeContext::kRowsPerBlock) {
      const std::size_t count = std::min(EncodeContext::kRowsPerBlock, n_keys - begin);
      cache.append(exec, qk.slice(begin, count), v.slice(begin, count));
    }
    context.for_blocks(qk.n, [&](std::size_t begin, std::size_t count) {
      standard_full_.forward(exec, cache, qk.slice(begin, count), attended.slice(begin, count));
    });
  }
}

void LshLayer::encode(EncodeContext& context, const Norm& norm, ConstRows x, Rows sum) const {
  const WholeRows qk(x.n, d_qk_, "the queries of LSH attention");
  const WholeRows v(x.n, d_value_, "the values of LSH attention");
  const WholeRows recurrent(1, recurrent_floats_, "the recurrent state of LSH attention");
  context.for_blocks(x.n, [&](std::size_t begin, std::size_t count) {
    const Rows h = normed_block(context, norm, x, begin, count);
    project(context.exec, h, context.positions.from(begin), recurrent.rows().data, qk.block(begin, count),
            v.block(begin, count));
  });
  const WholeRows attended(x.n, d_value_, "the output of LSH attention");
  if (x.n <= std_length_) {
    encode_standard(context, qk.rows(), v.rows(), attended.rows());
  } else {
    core_.full(context.exec, qk.rows(), v.rows(), context.n_real, causal_, attended.rows(), context.tick);
  }
  add_output(context, norm.kernels(), maps_.out ? &maps_.out : nullptr, attended.rows(), sum);
}

}  // namespace terrace
