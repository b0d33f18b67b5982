// SPDX-License-Identifier: Apache-2.0
#include "tools/common/text_input.h"

#include <fmt/format.h>

#include "engine/error.h"
#include "models/byte_tokenizer.h"
#include "models/utf8.h"
#include "tools/common/input.h"
#include "tools/common/warnings.h"

namespace terrace::tools {
namespace {

std::string source_name(const std::string& path) { return path == "-" ? "standard input" : path; }

}  // namespace

const Tokenizer& need_tokenizer(const Model& model) {
  const Tokenizer& tokenizer = model.tokenizer();
  TERRACE_CHECK(tokenizer.vocab_size() > 0, kUnsupported,
                fmt::format("{}: expected a tokenizer in the model file, found none", model.file().label()));
  return tokenizer;
}

std::vector<TokenId> encode_text(const Model& model, std::string_view text, const std::string& source) {
  const Tokenizer& tokenizer = model.tokenizer();
  const bool keeps_bytes = dynamic_cast<const ByteTokenizer*>(&tokenizer) != nullptr;
  if (const auto at = find_ill_formed_utf8(text); at && !keeps_bytes) {
    const bool utf16 = text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff");
    warn(
        fmt::format("{}: expected UTF-8, found another byte at offset {}{}; the model reads U+FFFD for each "
                    "such byte",
                    source_name(source), *at, utf16 ? " (it begins like UTF-16)" : ""));
  }
  return tokenizer.encode(text);
}

std::vector<TokenId> read_token_file(const std::string& path, std::uint32_t n_ids) {
  std::vector<TokenId> ids = read_token_file(path);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    TERRACE_CHECK(ids[i] >= 0 && static_cast<std::uint32_t>(ids[i]) < n_ids, kBadToken,
                  fmt::format("{}: word {}: expected an id from 0 to {}, found {}", source_name(path), i + 1,
                              n_ids - 1, ids[i]));
  }
  return ids;
}

}  // namespace terrace::tools
