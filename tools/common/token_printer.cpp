// SPDX-License-Identifier: Apache-2.0
#include "tools/common/token_printer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <utility>

#include "tools/common/output.h"

namespace terrace::tools {

TokenPrinter::TokenPrinter(const Tokenizer& tokenizer, std::span<const TokenId> context, bool ids,
                           std::vector<std::string> stops)
    : tokenizer_(&tokenizer), looks_for_stops_(!stops.empty()), filter_(std::move(stops)) {
  if (ids || tokenizer.vocab_size() == 0) return;
  decoder_ = tokenizer.stream_decoder();
  for (const TokenId id : context) decoder_->push(id);
  if (looks_for_stops_) context_.assign(context.begin(), context.end());
}

bool TokenPrinter::print(TokenId id) {
  if (!decoder_) {
    write_stdout(fmt::format("{}{}", first_ ? "" : " ", id));
    first_ = false;
    return true;
  }
  const std::string text = filter_.push(decoder_->push(id));
  write_stdout(text);
  if (looks_for_stops_) {
    tokens_.push_back(id);
    printed_ += text;
  }
  return !filter_.stopped();
}

void TokenPrinter::finish() {
  if (decoder_) {
    const std::string text = filter_.push(decoder_->finish()) + filter_.finish();
    write_stdout(text);
    if (looks_for_stops_) printed_ += text;
  }
  if (!decoder_ || isatty(STDOUT_FILENO) == 1) write_stdout("\n");
}

std::size_t TokenPrinter::n_whole() const {
  std::size_t n = tokens_.size();
  while (n > 0 && !printed_.starts_with(text_of_first(n))) --n;
  return n;
}

std::string TokenPrinter::text_of_first(std::size_t n) const {
  const auto decoder = tokenizer_->stream_decoder();
  for (const TokenId id : context_) decoder->push(id);
  std::string text;
  for (const TokenId id : std::span(tokens_).first(n)) text += decoder->push(id);
  return text + decoder->finish();
}

}  // namespace terrace::tools
