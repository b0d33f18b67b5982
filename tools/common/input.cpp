// SPDX-License-Identifier: Apache-2.0
#include "tools/common/input.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <span>
#include <system_error>

#include "engine/error.h"
#include "engine/quote.h"
#include "tools/common/interrupt.h"

namespace terrace::tools {
namespace {

/// How long a signal may wait that another thread got, or that came just before a wait.
constexpr int kPollMilliseconds = 100;

/// A file of its own, or standard input.
class Source {
 public:
  explicit Source(const std::string& path)
      : name_(source_name(path)), descriptor_(path == "-" ? STDIN_FILENO : -1) {
    while (descriptor_ < 0) {
      descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);  // of a named pipe this waits for a writer
      if (descriptor_ < 0) retry_or_fail();
    }
  }
  ~Source() {
    if (descriptor_ != STDIN_FILENO) ::close(descriptor_);
  }
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  /// Zero at the end.
  std::size_t read(std::span<char> to) const {
    while (true) {
      pollfd waited{descriptor_, POLLIN, 0};
      const int ready = ::poll(&waited, 1, kPollMilliseconds);
      Interrupt::check();
      if (ready == 0) continue;
      const ssize_t n = ::read(descriptor_, to.data(), to.size());
      if (n >= 0) return static_cast<std::size_t>(n);
      retry_or_fail();
    }
  }

 private:
  void retry_or_fail() const {
    const int error = errno;
    Interrupt::check();
    TERRACE_CHECK(error == EINTR, kIo,
                  fmt::format("{}: cannot read: {}", name_, std::generic_category().message(error)));
  }

  std::string name_;
  int descriptor_;
};

}  // namespace

std::string source_name(std::string_view path) { return std::string(path == "-" ? "standard input" : path); }

std::string read_file(const std::string& path) {
  const Source source(path);
  std::string text;
  char chunk[1 << 16];
  while (const std::size_t n = source.read(chunk)) text.append(chunk, n);
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
  return parse_token_ids(read_file(path), source_name(path));
}

std::vector<TokenId> read_token_file(const std::string& path, std::uint32_t vocab_size) {
  std::vector<TokenId> ids = read_token_file(path);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    TERRACE_CHECK(ids[i] >= 0 && static_cast<std::uint32_t>(ids[i]) < vocab_size, kBadToken,
                  fmt::format("{}: word {}: expected a token id from 0 to {}, found {}", source_name(path),
                              i + 1, vocab_size - 1, ids[i]));
  }
  return ids;
}

}  // namespace terrace::tools
