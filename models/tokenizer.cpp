// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/error.h"
#include "engine/quote.h"
#include "engine/strict_json.h"
#include "models/byte_tokenizer.h"
#include "models/sentencepiece_tokenizer.h"
#include "models/subword_tokenizer.h"

namespace terrace {
namespace {

/// Stands in a model file without tokenizer.
class NoTokenizer final : public Tokenizer {
 public:
  std::vector<TokenId> encode(std::string_view) const override { refuse("give token ids instead of text"); }
  std::string decode(std::span<const TokenId>) const override { refuse(kIds); }
  std::string piece(TokenId) const override { refuse(kIds); }
  TokenId vocab_size() const noexcept override { return 0; }
  std::unique_ptr<StreamDecoder> stream_decoder() const override { refuse(kIds); }

 private:
  static constexpr const char* kIds = "ids have no text";

  [[noreturn]] static void refuse(const std::string& so) {
    throw Error(ErrorCode::kUnsupported, "the model file holds no tokenizer: " + so);
  }
};

long long integer_field(const nlohmann::json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return 0;
  TERRACE_CHECK(
      found->is_number_integer(), kBadFile,
      std::string("tokenizer: ") + key + " must be an integer, found " +
          (found->is_string() ? quote_text(found->get_ref<const std::string&>()) : found->type_name()));
  // Those above the range of long long would wrap to a negative value.
  const bool fits =
      !found->is_number_unsigned() || found->get<unsigned long long>() <= std::numeric_limits<TokenId>::max();
  TERRACE_CHECK(fits, kBadFile, std::string("tokenizer: ") + key + " " + found->dump() + " is out of range");
  return found->get<long long>();
}

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer(std::string_view config_json, std::span<const std::byte> data) {
  const auto config = parse_strict_json(config_json, "tokenizer");
  TERRACE_CHECK(config.is_object() && config.contains("kind") && config["kind"].is_string(), kBadFile,
                "tokenizer: expected a JSON object with a \"kind\"");
  const auto& kind = config["kind"].get_ref<const std::string&>();
  if (kind == "none") return std::make_unique<NoTokenizer>();
  if (kind == "bytes") return std::make_unique<ByteTokenizer>(integer_field(config, "offset"));

  const std::string_view blob(reinterpret_cast<const char*>(data.data()), data.size());
  if (kind == "sentencepiece") return std::make_unique<SentencePieceTokenizer>(blob);
  if (kind == "subword") {
    return std::make_unique<SubwordTokenizer>(blob, integer_field(config, "n_reserved_ids"));
  }
  throw Error(ErrorCode::kUnsupported, "tokenizer: kind " + quote_text(kind) +
                                           " is unknown; known are none, bytes, sentencepiece, subword");
}

void check_vocabulary(const Tokenizer& tokenizer, std::uint32_t vocab_size, ErrorCode code) {
  if (std::cmp_less_equal(tokenizer.vocab_size(), vocab_size)) return;
  throw Error(code, "the tokenizer has " + std::to_string(tokenizer.vocab_size()) +
                        " ids, more than the vocabulary of " + std::to_string(vocab_size));
}

}  // namespace terrace
