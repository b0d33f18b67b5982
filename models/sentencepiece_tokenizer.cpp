// SPDX-License-Identifier: Apache-2.0
#include "models/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <optional>

#include "engine/error.h"
#include "models/sentencepiece_blob.h"
#include "models/utf8.h"

namespace terrace {

struct SentencePieceTokenizer::Impl {
  sentencepiece::SentencePieceProcessor processor;
  TokenId n_pieces = 0;
  bool denormalizes = false;

  void check_id(TokenId id) const {
    TERRACE_CHECK(id >= 0 && id < n_pieces, kBadToken,
                  "token id " + std::to_string(id) + " is outside the SentencePiece vocabulary 0 .. " +
                      std::to_string(n_pieces - 1));
  }

  /// Ids must have been checked.
  std::string decode(const std::vector<int>& ids) const {
    std::string text;
    const auto status = processor.Decode(ids, &text);
    TERRACE_CHECK(status.ok(), kInternal, "SentencePiece could not decode: " + status.ToString());
    return text;
  }

  /// The byte of a byte-fallback piece, spelled "<0xE2>".
  std::optional<char> fallback_byte(TokenId id) const {
    if (!processor.IsByte(id)) return std::nullopt;
    return static_cast<char>(std::stoi(processor.IdToPiece(id).substr(3, 2), nullptr, 16));
  }

  class Stream;
};

/// What an id adds to the text depends on one thing only: whether visible text stands before it (a leading
/// space is dropped). So its text is the difference between decoding [context, id] and decoding [context],
/// where the context is one visible id, or all ids so far while none is visible.
class SentencePieceTokenizer::Impl::Stream final : public StreamDecoder {
 public:
  explicit Stream(const Impl& model) : model_(model) {}

  std::string push(TokenId id) override {
    model_.check_id(id);
    std::string out;
    if (model_
            .denormalizes) {  // the table may rewrite across any boundary: nothing is certain before the end
      context_.push_back(id);
    } else if (const auto byte = model_.fallback_byte(id)) {
      bytes_.push({&*byte, 1}, out);
      anchor(id);
    } else {
      bytes_.finish(out);
      context_.push_back(id);
      out += model_.decode(context_).substr(context_text_.size());
      if (anchored_ || model_.processor.IsControl(id)) {
        context_.pop_back();
      } else {
        anchor(id);
      }
    }
    return out;
  }

  std::string finish() override {
    std::string out;
    bytes_.finish(out);
    if (model_.denormalizes) out = model_.decode(context_);
    context_.clear();
    context_text_.clear();
    anchored_ = false;
    return out;
  }

 private:
  /// Makes `id` the context if it is visible by itself.
  void anchor(TokenId id) {
    if (anchored_) return;
    const std::string alone = model_.decode({id});
    anchored_ = !alone.empty();
    if (anchored_) context_ = {id};
    context_text_ = anchored_ ? alone : model_.decode(context_);
  }

  const Impl& model_;
  std::vector<int> context_;
  std::string context_text_;
  bool anchored_ = false;
  Utf8Stream bytes_;
};

SentencePieceTokenizer::SentencePieceTokenizer(std::string_view model) {
  const SentencePieceBlob blob = check_sentencepiece_blob(model);
  auto impl = std::make_unique<Impl>();
  std::string problem;
  try {
    const auto status = impl->processor.LoadFromSerializedProto(blob.bytes);
    if (!status.ok()) problem = status.ToString();
  } catch (const std::exception& e) {  // the double-array builder throws
    problem = e.what();
  }
  TERRACE_CHECK(problem.empty(), kBadFile, "SentencePiece model: " + problem);
  impl->n_pieces = impl->processor.GetPieceSize();
  impl->denormalizes = blob.denormalizes;
  impl_ = std::move(impl);
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

std::vector<TokenId> SentencePieceTokenizer::encode(std::string_view text) const {
  std::vector<int> ids;
  const auto status = impl_->processor.Encode(text, &ids);
  TERRACE_CHECK(status.ok(), kInternal, "SentencePiece could not encode: " + status.ToString());
  return {ids.begin(), ids.end()};
}

std::string SentencePieceTokenizer::decode(std::span<const TokenId> ids) const {
  for (const TokenId id : ids) impl_->check_id(id);
  return impl_->decode({ids.begin(), ids.end()});
}

std::string SentencePieceTokenizer::piece(TokenId id) const {
  impl_->check_id(id);
  if (const auto byte = impl_->fallback_byte(id)) return {*byte};
  return impl_->processor.IsControl(id) ? std::string() : impl_->processor.IdToPiece(id);
}

TokenId SentencePieceTokenizer::vocab_size() const noexcept { return impl_->n_pieces; }

std::unique_ptr<StreamDecoder> SentencePieceTokenizer::stream_decoder() const {
  return std::make_unique<Impl::Stream>(*impl_);
}

}  // namespace terrace
