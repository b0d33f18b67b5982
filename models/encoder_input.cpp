// SPDX-License-Identifier: Apache-2.0
#include "models/encoder_input.h"

#include <fmt/format.h>

#include "engine/error.h"

namespace terrace {

std::size_t length_of(const EncoderInput& input) noexcept {
  const auto* rows = std::get_if<ConstRows>(&input);
  return rows ? rows->n : std::get_if<std::span<const TokenId>>(&input)->size();
}

Document::Document(const ModelConfig& config, const EncoderInput& input, std::size_t multiple,
                   Padding padding) {
  TERRACE_CHECK(config.encoder.has_value(), kBadArgument, "this model has no encoder");
  if (const auto* rows = std::get_if<ConstRows>(&input)) {
    take_rows(config, *rows);
  } else {
    take_tokens(config, std::get<std::span<const TokenId>>(input));
  }
  TERRACE_CHECK(n_real_ > 0, kBadArgument, "the document is empty");
  const std::size_t n = padding == Padding::kDrop ? n_real_ : length_of(input);
  const std::size_t n_padded = (n + multiple - 1) / multiple * multiple;
  if (width_) {
    rows_.resize(n_padded * width_, 0.0F);
  } else {
    ids_.resize(n_padded, padding_id(config));
  }
}

void Document::take_tokens(const ModelConfig& config, std::span<const TokenId> ids) {
  const auto vocabulary = static_cast<TokenId>(config.encoder->vocab_size);
  TERRACE_CHECK(
      vocabulary > 0, kBadArgument,
      fmt::format("this model's encoder takes rows of {} numbers, not tokens", config.encoder->d_input));
  ids_.assign(ids.begin(), ids.end());
  n_real_ = ids.size();
  while (n_real_ > 0 && ids[n_real_ - 1] == config.tokens.pad) --n_real_;
  for (std::size_t i = 0; i < n_real_; ++i) {
    TERRACE_CHECK(ids[i] >= 0 && ids[i] < vocabulary, kBadToken,
                  fmt::format("token {} of the document is {}; ids are 0 to {}", i, ids[i], vocabulary - 1));
    TERRACE_CHECK(
        ids[i] != config.tokens.pad, kBadToken,
        fmt::format("token {} of the document is the padding id {}, which may stand at the end only", i,
                    config.tokens.pad));
  }
}

void Document::take_rows(const ModelConfig& config, ConstRows rows) {
  width_ = config.encoder->d_input;
  TERRACE_CHECK(width_ > 0, kBadArgument, "this model's encoder takes tokens, not rows of numbers");
  TERRACE_CHECK(rows.width == width_, kBadArgument,
                fmt::format("this model's encoder takes rows of {} numbers, found {}", width_, rows.width));
  for (std::size_t t = 0; t < rows.n; ++t) rows_.insert(rows_.end(), rows.row(t), rows.row(t) + width_);
  n_real_ = rows.n;
}

EncoderInput Document::padded() const noexcept {
  if (width_ == 0) return std::span<const TokenId>(ids_);
  const std::size_t n = rows_.size() / width_;
  return ConstRows(rows_.data(), n, width_, width_);
}

}  // namespace terrace
