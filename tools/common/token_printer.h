// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/tokenizer.h"
#include "tools/common/stop_filter.h"

namespace terrace::tools {

/// Prints tokens to stdout, as text up to a stop text, or as ids.
class TokenPrinter {
 public:
  /// `context`: what the text continues. Decoding it first settles spaces and characters at the seam.
  /// A model without tokenizer has ids only. The tokenizer must outlive the printer.
  TokenPrinter(const Tokenizer& tokenizer, std::span<const TokenId> context, bool ids,
               std::vector<std::string> stops);

  /// False once a stop text is complete. Throws Error{kIo}.
  bool print(TokenId id);
  /// Prints what was held back and, after ids or on a terminal, ends the line. Throws Error{kIo}.
  void finish();

  /// Whether a stop text was found: the tokens say more than was printed.
  bool stopped() const noexcept { return filter_.stopped(); }
  /// The most tokens, from the first one, whose text was printed whole.
  std::size_t n_whole() const;

 private:
  std::string text_of_first(std::size_t n) const;

  const Tokenizer* tokenizer_;
  bool looks_for_stops_;
  StopFilter filter_;
  std::unique_ptr<StreamDecoder> decoder_;  ///< null when ids are printed
  std::vector<TokenId> context_;            ///< and what follows only where stop texts are looked for
  std::vector<TokenId> tokens_;
  std::string printed_;
  bool first_ = true;
};

}  // namespace terrace::tools
