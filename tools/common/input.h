// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/token.h"

namespace terrace::tools {

/// All bytes of a file; "-" is standard input. Throws Error{kIo}, and Error{kCancelled} soon after a signal
/// (Interrupt).
std::string read_file(const std::string& path);

/// Whitespace-separated decimal token ids. `where` names the source in messages. Whether an id is in the
/// vocabulary is not checked here. Throws Error{kBadFile} with the position and text of the first word that
/// is not an id.
std::vector<TokenId> parse_token_ids(std::string_view text, std::string_view where);

/// Whether the ids are in a vocabulary of so many. Throws Error{kBadToken} with the first word that is not,
/// counted as parse_token_ids() does.
void check_token_ids(std::span<const TokenId> ids, std::string_view where, std::uint32_t vocab_size);

/// Ids of a file ("-" is standard input). Throws Error{kIo, kBadFile}.
std::vector<TokenId> read_token_file(const std::string& path);
/// The same, checked for a vocabulary. Throws Error{kBadToken} too.
std::vector<TokenId> read_token_file(const std::string& path, std::uint32_t vocab_size);

}  // namespace terrace::tools
