// SPDX-License-Identifier: Apache-2.0
#include "models/config.h"

#include <algorithm>

namespace terrace {

bool is_routed(const StackConfig& s, std::uint32_t index) noexcept {
  return s.depths && index % s.depths->every == s.depths->every - 1;
}

std::vector<StackStep> stack_steps(const ModelConfig& c, const StackConfig& s) {
  using Kind = StackStep::Kind;
  const bool is_encoder = c.encoder && &s == &*c.encoder;
  std::uint32_t d_model = embedding_width(c);
  std::uint32_t d_ff = c.decoder.half_before_layer ? c.d_ff / 2 : c.d_ff;
  std::vector<StackStep> plain;
  for (std::uint32_t i = 0; i < s.n_layers; ++i) {
    plain.push_back({Kind::kBlock, i, d_model, d_ff});
    if (is_encoder) continue;
    const bool widen = (s.half_before_layer && i + 1 == *s.half_before_layer) ||
                       (s.double_after_layer && i == *s.double_after_layer);
    if (!widen) continue;
    plain.push_back({Kind::kConcatenate, i, d_model, 0});
    d_model *= 2;
    d_ff *= 2;
  }
  if (s.forget_every == 0) return plain;

  std::vector<StackStep> steps;
  std::size_t done = 0;
  while (plain.size() - done > s.forget_every + std::size_t{1}) {
    steps.insert(steps.end(), plain.begin() + static_cast<std::ptrdiff_t>(done),
                 plain.begin() + static_cast<std::ptrdiff_t>(done + s.forget_every));
    done += s.forget_every;
    steps.push_back({Kind::kForget, plain[done - 1].block, plain[done].d_model, 0});
  }
  steps.insert(steps.end(), plain.begin() + static_cast<std::ptrdiff_t>(done), plain.end());
  return steps;
}

AttentionConfig attention_of(const ModelConfig& config, const StackConfig& stack, std::uint32_t i,
                             std::uint32_t d_model) {
  AttentionConfig a = stack.attention[i % stack.attention.size()];
  const auto at_width = [&](std::uint32_t size) {
    return static_cast<std::uint32_t>(std::uint64_t{size} * d_model / config.d_model);
  };
  a.d_head = at_width(a.d_head);
  a.d_value = at_width(a.d_value);
  return a;
}

std::size_t attention_scratch_bytes(const ModelConfig& config, std::size_t n_decoder_rows,
                                    std::size_t n_encoder_rows) {
  const auto of_stack = [&config](const StackConfig& stack, std::size_t n_rows) {
    std::size_t floats = 0;
    for (const AttentionConfig& a : stack.attention) {
      const std::size_t d_head = a.d_head ? a.d_head : config.d_model / config.n_heads;
      const std::size_t d_value = a.d_value ? a.d_value : d_head;
      floats = std::max(floats, a.n_hashes * (d_value + 64));
    }
    return n_rows * (16 * std::size_t{config.n_heads} + floats) * sizeof(float);
  };
  const std::size_t of_decoder = of_stack(config.decoder, n_decoder_rows);
  return config.encoder ? std::max(of_decoder, of_stack(*config.encoder, n_encoder_rows)) : of_decoder;
}

std::uint32_t embedding_width(const ModelConfig& c) noexcept {
  return c.decoder.half_before_layer ? c.d_model / 2 : c.d_model;
}

std::uint32_t final_width(const ModelConfig& c) {
  if (c.family == Family::kReformerLm) return 2 * c.d_model;
  const StackStep last = stack_steps(c, c.decoder).back();
  return last.kind == StackStep::Kind::kConcatenate ? 2 * last.d_model : last.d_model;
}

}  // namespace terrace
