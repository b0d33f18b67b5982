// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/model.h"
#include "models/token.h"

namespace terrace::tools {

/// The ids of a text by the model's tokenizer, which takes seconds for megabytes, with a clock on a terminal.
/// Throws as Tokenizer::encode(), and Error{kCancelled} soon after a signal (Interrupt).
std::vector<TokenId> encode_text(std::shared_ptr<const Model> model, std::string text);

/// Whether a tokenizer that nobody waits for still runs. The process may then not end by way of destructors.
bool tokenizer_left_running() noexcept;

}  // namespace terrace::tools
