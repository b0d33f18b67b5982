// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/model.h"
#include "models/token.h"

namespace terrace::tools {

/// The tokenizer of a model file. Throws Error{kUnsupported} that names the file where there is none.
const Tokenizer& need_tokenizer(const Model& model);

/// The ids of a text by the model's tokenizer, which takes seconds for megabytes, with a clock on a terminal.
/// `source` is its file or flag. Warns of text that is no UTF-8 where the tokenizer does not keep such bytes.
/// Throws as Tokenizer::encode(), and Error{kCancelled} soon after a signal (Interrupt).
std::vector<TokenId> encode_text(std::shared_ptr<const Model> model, std::string text,
                                 std::string_view source);

/// Whether a tokenizer that nobody waits for still runs. The process may then not end by way of destructors.
bool tokenizer_left_running() noexcept;

}  // namespace terrace::tools
