// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/model.h"
#include "models/token.h"

namespace terrace::tools {

/// The tokenizer of a model file. Throws Error{kUnsupported} that names the file where there is none.
const Tokenizer& need_tokenizer(const Model& model);

/// The ids of a text; `source` is its file or flag. Warns on stderr where it is no UTF-8 and the tokenizer
/// does not keep such bytes.
std::vector<TokenId> encode_text(const Model& model, std::string_view text, const std::string& source);

/// read_token_file() with ids from 0 to n_ids - 1. Throws Error{kBadToken} with the place of one that is not.
std::vector<TokenId> read_token_file(const std::string& path, std::uint32_t n_ids);

}  // namespace terrace::tools
