// SPDX-License-Identifier: Apache-2.0
#include "models/network.h"

#include <algorithm>
#include <cstring>
#include <variant>

#include "models/position_builder.h"

namespace terrace {

LayerBuilder Network::builder(WeightBinder& binder, StateLayout& state) noexcept {
  return {binder, kernels_, isa_, config_, state, rotary_tables_};
}

Network::Network(const ModelConfig& config, WeightBinder& binder, Isa isa)
    : config_(config),
      isa_(isa),
      kernels_(dense_kernels(isa)),
      decoder_(builder(binder, decoder_state_), "decoder", config.decoder, /*causal=*/true) {
  const std::size_t d = embedding_width(config);
  if (config.encoder) {
    const StackConfig& stack = *config.encoder;
    const LayerBuilder build = builder(binder, encoder_state_);
    if (stack.d_input) {
      encoder_input_ = build.linear("encoder.input", stack.d_input, d);
    } else {
      encoder_embedding_ =
          Embedding(kernels_, binder.gathered_weight("encoder.embedding", {stack.vocab_size, d}));
    }
    encoder_position_ = build_position(build, "encoder", stack.position, d);
    encoder_.emplace(build, "encoder", stack, /*causal=*/false);
    const bool joined = config.family == Family::kTerraformer && !stack.reversible;
    if (joined) join_ = build.linear("encoder.join", d, d);
    if (joined || config.family == Family::kTransformer) encoder_norm_ = build.norm("encoder.norm", d, true);
  }
  const LayerBuilder build = builder(binder, decoder_state_);
  embedding_ = config.shared_embedding
                   ? encoder_embedding_
                   : Embedding(kernels_, binder.gathered_weight("decoder.embedding", {config.vocab_size, d}));
  position_ = build_position(build, "decoder", config.decoder.position, d);
  const std::size_t final = terrace::final_width(config);
  final_norm_ = build.norm("decoder.norm", final, true);
  logits_ = build.projection("decoder.logits", config.logits, final, config.vocab_size);
}

Streams Network::take_streams(Exec& exec, std::size_t n) const {
  const std::size_t stride = decoder_.max_width();
  const std::size_t width = embedding_.width();
  const bool reversible = config_.family == Family::kTerraformer || config_.family == Family::kReformerLm;
  Streams streams;
  streams.x1 = {exec.ws.take<float>(n * stride), n, width, stride};
  if (reversible) streams.x2 = {exec.ws.take<float>(n * stride), n, width, stride};
  return streams;
}

void Network::embed(Exec& exec, std::span<const TokenId> ids, std::size_t first, Streams& streams) const {
  const ProfileZone zone(exec.profile, Zone::kEmbedding);
  embedding_.forward(ids, streams.x1);
  position_.add(exec, streams.x1, first);
  if (streams.reversible()) copy_rows(streams.x1, streams.x2);
}

void Network::join_streams(const Exec& exec, const Streams& streams, Rows y) const noexcept {
  if (!streams.reversible()) {
    copy_rows(streams.x1, y);
  } else if (config_.family == Family::kTerraformer) {
    mean_of_streams(exec, streams, y);
  } else {
    const std::size_t d = streams.x1.width;
    for (std::size_t t = 0; t < y.n; ++t) {
      std::memcpy(y.row(t), streams.x1.row(t), d * sizeof(float));
      std::memcpy(y.row(t) + d, streams.x2.row(t), d * sizeof(float));
    }
  }
}

void Network::logits(Exec& exec, ConstRows x, Rows logits) const {
  const ProfileZone zone(exec.profile, Zone::kLogits);
  const Workspace::Scope scope(exec.ws);
  const Rows h = take_rows(exec, x.n, x.width);
  final_norm_.forward(exec, x, h);
  logits_.forward(exec, h, logits);
}

Largest Network::largest_logit(Exec& exec, ConstRows x) const {
  const ProfileZone zone(exec.profile, Zone::kLogits);
  const Workspace::Scope scope(exec.ws);
  const Rows h = take_rows(exec, x.n, x.width);
  final_norm_.forward(exec, x, h);
  return logits_.largest(exec, h);
}

Network::Encoded Network::encode(Exec& exec, const EncoderInput& input, std::size_t n_real,
                                 const RowTick& tick) const {
  const auto* ids = std::get_if<std::span<const TokenId>>(&input);
  const std::size_t n = length_of(input);
  const std::size_t d = embedding_width(config_);
  const bool reversible = config_.family == Family::kTerraformer;
  Encoded out{WholeRows(n, d, "the encoder's rows"), std::nullopt};
  if (reversible) out.second.emplace(n, d, "the encoder's second stream");
  EncodeContext context{exec, n_real, tick};
  for (std::size_t begin = 0; begin < n; begin += EncodeContext::kRowsPerBlock) {
    const Workspace::Scope scope(exec.ws);
    const std::size_t count = std::min(EncodeContext::kRowsPerBlock, n - begin);
    const Rows x = out.first.block(begin, count);
    if (ids) {
      encoder_embedding_.forward(ids->subspan(begin, count), x);
    } else {
      encoder_input_.forward(exec, std::get<ConstRows>(input).slice(begin, count), x);
    }
    encoder_position_.add(exec, x, begin);
    if (reversible) copy_rows(x, out.second->block(begin, count));
  }
  StackState state(encoder_state_, KvType::kF32, n);
  Streams streams{out.first.rows(), reversible ? out.second->rows() : Rows{}};
  encoder_->evaluate(context, streams, state);
  // After an odd number of swaps the names of the streams are exchanged.
  if (streams.x1.data != out.first.rows().data) std::swap(out.first, *out.second);
  if (!encoder_norm_) return out;

  for (std::size_t begin = 0; begin < n; begin += EncodeContext::kRowsPerBlock) {
    const Workspace::Scope scope(exec.ws);
    const std::size_t count = std::min(EncodeContext::kRowsPerBlock, n - begin);
    const Rows x = out.first.block(begin, count);
    if (join_) {
      const Rows mean = take_rows(exec, count, d);
      mean_of_streams(exec, {x, out.second->block(begin, count)}, mean);
      join_.forward(exec, mean, x);
    }
    encoder_norm_.forward(exec, x, x);
  }
  out.second.reset();
  return out;
}

}  // namespace terrace
