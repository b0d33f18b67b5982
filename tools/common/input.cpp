// SPDX-License-Identifier: Apache-2.0
#include "tools/common/input.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <memory>
#include <system_error>

#include "engine/error.h"
#include "engine/quote.h"

namespace terrace::tools {

std::string read_file(const std::string& path) {
  const bool is_stdin = path == "-";
  const std::string name = is_stdin ? "standard input" : path;
  const auto fail = [&] {
    throw Error(ErrorCode::kIo,
                fmt::format("{}: cannot read: {}", name, std::generic_category().message(errno)));
  };

  std::FILE* file = is_stdin ? stdin : std::fopen(path.c_str(), "rb");
  if (file == nullptr) fail();
  const auto close = [is_stdin](std::FILE* f) {
    if (!is_stdin) std::fclose(f);
  };
  const std::unique_ptr<std::FILE, decltype(close)> owner(file, close);

  std::string text;
  char chunk[1 << 16];
  while (const std::size_t n = std::fread(chunk, 1, sizeof chunk, file)) text.append(chunk, n);
  if (std::ferror(file) != 0) fail();
  return text;
}

std::vector<TokenId> parse_token_ids(std::string_view text, std::string_view where) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  std::vector<TokenId> ids;
  std::size_t begin = text.find_first_not_of(kSpace);
  while (begin != std::string_view::npos) {
    const std::size_t end = std::min(text.find_first_of(kSpace, begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    TokenId id = 0;
    const auto [rest, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    TERRACE_CHECK(error == std::errc() && rest == word.data() + word.size(), kBadFile,
                  fmt::format("{}: word {} at byte {}: expected a token id, found {}", where, ids.size() + 1,
                              begin, quote_text(word)));
    ids.push_back(id);
    begin = text.find_first_not_of(kSpace, end);
  }
  return ids;
}

std::vector<TokenId> read_token_file(const std::string& path) {
  return parse_token_ids(read_file(path), path == "-" ? "standard input" : path);
}

}  // namespace terrace::tools
