// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/token.h"

namespace terrace::tools {

/// What messages call a file of the command line.
std::string source_name(std::string_view path);

/// All bytes of a file; "-" is standard input. Throws Error{kIo}, and Error{kCancelled} soon after a signal
/// (Interrupt).
std::string read_file(const std::string& path);

/// Whitespace-separated decimal token ids. `where` names the source in messages. Whether an id is in the
/// vocabulary is not checked here. Throws Error{kBadFile} with the position and text of the first word that
/// is not an id.
std::vector<TokenId> parse_token_ids(std::string_view text, std::string_view where);

/// Ids of a file ("-" is standard input). Throws Error{kIo, kBadFile}.
std::vector<TokenId> read_token_file(const std::string& path);
/// The same, for a vocabulary of so many. Throws Error{kBadToken} too, with the first word that is not in it.
std::vector<TokenId> read_token_file(const std::string& path, std::uint32_t vocab_size);

}  // namespace terrace::tools
