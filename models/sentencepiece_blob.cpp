// SPDX-License-Identifier: Apache-2.0
#include "models/sentencepiece_blob.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "engine/error.h"
#include "engine/quote.h"
#include "models/protobuf_reader.h"
#include "models/utf8.h"

namespace terrace {
namespace {

// Field numbers of sentencepiece_model.proto.
constexpr std::uint32_t kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3, kSelfTestData = 4,
                        kDenormalizerSpec = 5;
constexpr std::uint32_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;
constexpr std::uint32_t kPrecompiledCharsMap = 2;
constexpr std::uint32_t kUnknownSurface = 44;
constexpr std::uint64_t kUserDefined = 4;

// Sizes of the library's arrays on the stack; more results than that would be read past their end.
constexpr std::size_t kMaxPieceBytes = 1000;  // 1024 prefixes of one piece
constexpr std::size_t kMaxNestedSymbols = 64;
constexpr std::size_t kMaxNestedRules = 32;

// Far above the longest rule of any Unicode normalisation (18 characters); bounds our recursion.
constexpr std::size_t kMaxRuleBytes = 256;

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorCode::kBadFile, "SentencePiece model: " + what);
}

/// The double array of a precompiled character map, as darts-clone lays it out: 32-bit units, bit 31 marks an
/// entry, bits 0-7 are the label, bit 8 says that an entry hangs below, the rest is the offset to the
/// children.
class CharacterMap {
 public:
  explicit CharacterMap(std::string_view blob) {
    std::uint32_t trie_bytes = 0;
    if (blob.size() <= sizeof trie_bytes) fail("a character map too short for its header");
    std::memcpy(&trie_bytes, blob.data(), sizeof trie_bytes);
    blob.remove_prefix(sizeof trie_bytes);
    if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > blob.size()) {
      fail("a character map whose double array of " + std::to_string(trie_bytes) +
           " bytes does not fit its " + std::to_string(blob.size()) + " bytes");
    }
    units_.resize(trie_bytes / 4);
    std::memcpy(units_.data(), blob.data(), trie_bytes);
    entries_.assign(units_.size(), kUnseen);
    strings_ = blob.substr(trie_bytes);
    if (strings_.empty() || strings_.back() != '\0') fail("a character map whose last string has no end");
  }

  /// Visits every node a search could reach.
  void check() {
    if (most_entries_below(0, 0) > kMaxNestedRules) fail("a character map with more than 32 nested entries");
  }

 private:
  static std::size_t offset(std::uint32_t unit) {
    return static_cast<std::size_t>(unit >> 10) << (unit >> 6 & 8);
  }

  /// Most entries that a search can meet from `node` on, this one included. Nodes are shared between paths
  /// (the array is a directed acyclic graph), so each is visited once and its result kept.
  std::size_t most_entries_below(std::size_t node, std::size_t depth) {
    if (entries_[node] == kOnPath) fail("a character map that runs in a circle");
    if (entries_[node] != kUnseen) return static_cast<std::size_t>(entries_[node]);
    if (depth > kMaxRuleBytes) fail("a character map with rules of more than 256 bytes");
    entries_[node] = kOnPath;
    const std::uint32_t unit = units_[node];
    const std::size_t first = node ^ offset(unit);
    if ((first | 0xFF) >= units_.size()) fail("a character map that points outside itself");
    std::size_t most = 0;
    for (std::size_t label = 0; label < 256; ++label) {
      const std::size_t child = first ^ label;
      if ((units_[child] & 0x800000FFu) == label) most = std::max(most, most_entries_below(child, depth + 1));
    }
    if ((unit >> 8 & 1) != 0) {
      check_entry(units_[first]);
      ++most;
    }
    entries_[node] = static_cast<int>(most);
    return most;
  }

  void check_entry(std::uint32_t unit) const {
    const std::uint32_t value = unit & 0x7FFFFFFFu;
    if (unit >> 31 == 0 || value >= strings_.size()) fail("a character map entry without a string");
  }

  static constexpr int kUnseen = -1, kOnPath = -2;

  std::vector<std::uint32_t> units_;
  std::vector<int> entries_;  // by node: kUnseen, kOnPath, or what most_entries_below found
  std::string_view strings_;
};

/// Checks one NormalizerSpec; returns whether it holds a character map.
bool check_normalizer(std::string_view spec) {
  std::string_view map;
  ProtobufReader reader(spec);
  while (const auto field = reader.next()) {
    if (field->number == kPrecompiledCharsMap && field->wire_type == 2) map = field->payload;
  }
  if (!map.empty()) CharacterMap(map).check();
  return !map.empty();
}

/// Checks one piece and adds user-defined symbols to `symbols`.
void check_piece(std::string_view piece, std::size_t index, std::vector<std::string_view>& symbols) {
  std::string_view text;
  float score = 0;
  std::uint64_t type = 1;
  ProtobufReader reader(piece);
  while (const auto field = reader.next()) {
    if (field->number == kPieceText && field->wire_type == 2) text = field->payload;
    if (field->number == kPieceScore && field->wire_type == 5) {
      score = std::bit_cast<float>(static_cast<std::uint32_t>(field->value));
    }
    if (field->number == kPieceType && field->wire_type == 0) type = field->value;
  }
  const auto where = [&] { return "piece " + std::to_string(index) + " " + quote_text(text); };
  if (text.empty() || text.size() > kMaxPieceBytes) fail(where() + " has a length outside 1 .. 1000 bytes");
  if (text.find('\0') != std::string_view::npos) fail(where() + " holds a zero byte");
  if (find_ill_formed_utf8(text)) fail(where() + " is not UTF-8");
  if (!std::isfinite(score)) fail(where() + " has a score that is not finite");
  if (type == kUserDefined) symbols.push_back(text);
}

void check_nesting(std::vector<std::string_view>& symbols) {
  std::sort(symbols.begin(), symbols.end());
  std::vector<std::string_view> prefixes;  // of the current symbol, shortest first
  for (const std::string_view symbol : symbols) {
    while (!prefixes.empty() && !symbol.starts_with(prefixes.back())) prefixes.pop_back();
    prefixes.push_back(symbol);
    if (prefixes.size() > kMaxNestedSymbols) fail("more than 64 user-defined pieces that begin one another");
  }
}

void check_trainer(std::string_view spec) {
  ProtobufReader reader(spec);
  while (const auto field = reader.next()) {
    if (field->number == kUnknownSurface && field->wire_type == 2 && find_ill_formed_utf8(field->payload)) {
      fail("the text of the unknown piece is not UTF-8");
    }
  }
}

}  // namespace

SentencePieceBlob check_sentencepiece_blob(std::string_view bytes) {
  SentencePieceBlob blob;
  blob.bytes.reserve(bytes.size());
  std::vector<std::string_view> symbols;
  // protobuf merges a message field that occurs twice; joining the payloads is that merge, so the checks
  // below see what the library will see.
  std::string trainer, normalizer, denormalizer;
  std::size_t n_pieces = 0;
  ProtobufReader reader(bytes);
  while (const auto field = reader.next()) {
    if (field->number <= kDenormalizerSpec && field->wire_type != 2)
      fail("a field that should hold a message");
    if (field->number == kSelfTestData) continue;
    if (field->number == kPieces) check_piece(field->payload, n_pieces++, symbols);
    if (field->number == kTrainerSpec) trainer += field->payload;
    if (field->number == kNormalizerSpec) normalizer += field->payload;
    if (field->number == kDenormalizerSpec) denormalizer += field->payload;
    blob.bytes += field->encoded;
  }
  if (n_pieces == 0) fail("it holds no pieces");
  check_nesting(symbols);
  check_trainer(trainer);
  check_normalizer(normalizer);
  blob.denormalizes = check_normalizer(denormalizer);
  return blob;
}

}  // namespace terrace
