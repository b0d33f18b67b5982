// SPDX-License-Identifier: Apache-2.0
#include "models/subword_tokenizer.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <limits>

#include "engine/error.h"
#include "engine/quote.h"
#include "models/subword_escape.h"
#include "models/utf8.h"

namespace terrace {
namespace {

// Characters that escapes are made of; they belong to every alphabet.
constexpr std::string_view kEscapeCharacters = "\\_u;0123456789";

/// Python's str.isspace: Unicode white space and the information separators U+001C .. U+001F.
bool is_space(char32_t c) {
  return u_isUWhiteSpace(static_cast<UChar32>(c)) != 0 || (c >= 0x1C && c <= 0x1F);
}

std::string_view strip_trailing_space(std::string_view line) {
  std::size_t end = 0;  // after the last character that is no space
  for (std::size_t at = 0; at < line.size();) {
    const Utf8Step step = read_utf8(line.substr(at));
    at += step.length;
    if (!is_space(step.code_point)) end = at;
  }
  return line.substr(0, end);
}

/// The piece on a line: without trailing space, then without a pair of equal quotes. A lone quote is an empty
/// piece.
std::string_view piece_of_line(std::string_view line) {
  line = strip_trailing_space(line);
  if (line.empty() || (line[0] != '\'' && line[0] != '"') || line.back() != line[0]) return line;
  return line.size() == 1 ? std::string_view() : line.substr(1, line.size() - 2);
}

std::vector<std::string> read_pieces(std::string_view file) {
  TERRACE_CHECK(!file.empty(), kBadFile, "subword vocabulary: the file is empty");
  const auto ill_formed = find_ill_formed_utf8(file);
  TERRACE_CHECK(!ill_formed, kBadFile,
                "subword vocabulary: not UTF-8 at byte " + std::to_string(*ill_formed));
  std::vector<std::string> pieces;
  while (!file.empty()) {
    const std::size_t end = std::min(file.find('\n'), file.size());
    pieces.emplace_back(piece_of_line(file.substr(0, end)));
    file.remove_prefix(std::min(end + 1, file.size()));
  }
  return pieces;
}

/// Maximal runs of characters that are all alphanumeric or all not, without the runs that are one space
/// inside the text. `text` must be valid UTF-8.
std::vector<std::string_view> cut_into_runs(std::string_view text) {
  std::vector<std::string_view> runs;
  std::size_t begin = 0;
  bool kind = false;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text.substr(at));
    const bool alphanumeric = is_alphanumeric(step.code_point);
    if (at > 0 && alphanumeric != kind) {
      if (begin == 0 || text.substr(begin, at - begin) != " ") runs.push_back(text.substr(begin, at - begin));
      begin = at;
    }
    kind = alphanumeric;
    at += step.length;
  }
  if (!text.empty()) runs.push_back(text.substr(begin));
  return runs;
}

std::string escape(std::string_view run, const std::unordered_set<char32_t>& alphabet) {
  std::string out;
  out.reserve(run.size() + 1);
  for (std::size_t at = 0; at < run.size();) {
    const Utf8Step step = read_utf8(run.substr(at));
    if (step.code_point == '\\') {
      out += "\\\\";
    } else if (step.code_point == '_') {
      out += "\\u";
    } else if (step.code_point == '\n' || !alphabet.contains(step.code_point)) {
      out += '\\' + std::to_string(static_cast<std::uint32_t>(step.code_point)) + ';';
    } else {
      out += run.substr(at, step.length);
    }
    at += step.length;
  }
  return out += '_';
}

}  // namespace

class SubwordTokenizer::Stream final : public StreamDecoder {
 public:
  explicit Stream(const SubwordTokenizer& tokenizer) : tokenizer_(tokenizer) {}

  std::string push(TokenId id) override {
    std::string out;
    joiner_.push(tokenizer_.text_of(id), out);
    return out;
  }

  std::string finish() override {
    std::string out;
    joiner_.finish(out);
    return out;
  }

 private:
  const SubwordTokenizer& tokenizer_;
  SubwordJoiner joiner_;
};

SubwordTokenizer::SubwordTokenizer(std::string_view file, long long n_reserved_ids)
    : n_reserved_ids_(static_cast<TokenId>(n_reserved_ids)), pieces_(read_pieces(file)) {
  const long long largest = std::numeric_limits<TokenId>::max();
  TERRACE_CHECK(n_reserved_ids >= 0 && n_reserved_ids <= largest - static_cast<long long>(pieces_.size()),
                kBadFile, "tokenizer: n_reserved_ids " + std::to_string(n_reserved_ids) + " is out of range");
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    if (!pieces_[i].empty()) sorted_.push_back({pieces_[i], n_reserved_ids_ + static_cast<TokenId>(i)});
  }
  // Of equal pieces the last one is used: it comes first here and survives unique().
  std::sort(sorted_.begin(), sorted_.end(),
            [](const Entry& a, const Entry& b) { return a.text != b.text ? a.text < b.text : a.id > b.id; });
  const auto same = [](const Entry& a, const Entry& b) { return a.text == b.text; };
  sorted_.erase(std::unique(sorted_.begin(), sorted_.end(), same), sorted_.end());

  alphabet_.insert(kEscapeCharacters.begin(), kEscapeCharacters.end());
  for (const std::string& piece : pieces_) {
    for (std::size_t at = 0; at < piece.size();) {
      const Utf8Step step = read_utf8(std::string_view(piece).substr(at));
      alphabet_.insert(step.code_point);
      at += step.length;
    }
  }
}

std::vector<TokenId> SubwordTokenizer::encode(std::string_view text) const {
  const std::string valid = to_valid_utf8(text);
  std::vector<TokenId> ids;
  for (const std::string_view run : cut_into_runs(valid)) spell(escape(run, alphabet_), ids);
  return ids;
}

/// Greedy longest match. Comparing bytes finds the same pieces as comparing characters, for all of them are
/// whole characters. The entries that begin with the first n bytes are a range of sorted_, narrowed byte by
/// byte.
void SubwordTokenizer::spell(std::string_view escaped, std::vector<TokenId>& ids) const {
  while (!escaped.empty()) {
    auto low = sorted_.begin();
    auto high = sorted_.end();
    const Entry* longest = nullptr;
    for (std::size_t n = 0; n < escaped.size() && low != high; ++n) {
      const auto byte = static_cast<unsigned char>(escaped[n]);
      const auto at_n = [n](const Entry& e) {  // -1 sorts entries that end here first
        return n < e.text.size() ? static_cast<int>(static_cast<unsigned char>(e.text[n])) : -1;
      };
      low = std::partition_point(low, high, [&](const Entry& e) { return at_n(e) < byte; });
      high = std::partition_point(low, high, [&](const Entry& e) { return at_n(e) == byte; });
      if (low != high && low->text.size() == n + 1) longest = &*low;
    }
    TERRACE_CHECK(
        longest != nullptr, kBadFile,
        "subword vocabulary: no piece begins " + quote_text(escaped) + ", so it cannot spell every text");
    ids.push_back(longest->id);
    escaped.remove_prefix(longest->text.size());
  }
}

std::string SubwordTokenizer::decode(std::span<const TokenId> ids) const {
  std::string text;
  SubwordJoiner joiner;
  for (const TokenId id : ids) joiner.push(text_of(id), text);
  joiner.finish(text);
  return text;
}

std::string SubwordTokenizer::piece(TokenId id) const {
  TERRACE_CHECK(id >= 0 && id < vocab_size(), kBadToken,
                "token id " + std::to_string(id) + " is outside the subword vocabulary 0 .. " +
                    std::to_string(vocab_size() - 1));
  return std::string(text_of(id));
}

TokenId SubwordTokenizer::vocab_size() const noexcept {
  return n_reserved_ids_ + static_cast<TokenId>(pieces_.size());
}

std::string_view SubwordTokenizer::text_of(TokenId id) const noexcept {
  return id >= n_reserved_ids_ && id < vocab_size()
             ? std::string_view(pieces_[static_cast<std::size_t>(id - n_reserved_ids_)])
             : std::string_view();
}

std::unique_ptr<StreamDecoder> SubwordTokenizer::stream_decoder() const {
  return std::make_unique<Stream>(*this);
}

}  // namespace terrace
