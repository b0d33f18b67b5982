// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "attention/kv_cache.h"
#include "engine/profile.h"
#include "engine/row_observer.h"
#include "engine/runtime.h"
#include "models/encoder_input.h"
#include "models/model.h"
#include "models/token.h"

namespace terrace {

/// Bytes that a session holds, for reports.
struct StateBytes {
  std::size_t kv_cache = 0;   ///< K/V (and hash ids) of the positions in the context
  std::size_t recurrent = 0;  ///< convolution tails, SRU cells, running sums
  std::size_t snapshots = 0;  ///< and marks
  std::size_t workspace = 0;  ///< largest use of scratch memory so far
};

/// Seconds that reading a document took, in two parts.
struct DocumentTimes {
  double encoder = 0;
  double prefill = 0;  ///< the encoder's rows through the decoder, or through the maps of cross attention
};

/// One conversation: everything that changes from token to token. Not thread-safe; sessions of one Model may
/// run at the same time if each has its own Runtime.
///
/// prefill(n) then decode one by one gives the same bits as decode one by one, for any split, any number of
/// threads and after any rewind, fork or restore (on one instruction set).
class Session {
 public:
  struct Options {
    std::size_t max_context = 0;  ///< tokens; 0 = the model's max_context
    /// How K and V are stored; LSH attention, which gathers rows, keeps q4 as q8.
    KvType kv_type = KvType::kF32;
    /// Longest document that encode() accepts; 0 = the model's max_context. Never more than the encoder has
    /// positions.
    std::size_t max_encoder_tokens = 0;
    /// LSH attention becomes the exact attention that it approximates: every earlier position that it
    /// remembers, instead of those that hashes choose. For comparison; its cost grows with the context.
    bool exact_attention = false;
  };

  /// Called between blocks of work with the number of tokens done and the total; false cancels.
  using Progress = std::function<bool(std::size_t done, std::size_t total)>;
  /// Receives the logits that follow each fed token, row by row, while a prefill runs.
  using LogitsSink = std::function<void(std::size_t row, std::span<const float> logits)>;

  /// Reserves all memory the session will use. Throws Error{kOutOfMemory, kBadArgument}. `runtime` must
  /// outlive it.
  Session(std::shared_ptr<const Model> model, Runtime& runtime, const Options& options);
  Session(std::shared_ptr<const Model> model, Runtime& runtime)
      : Session(std::move(model), runtime, Options{}) {}
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  /// Encoder-decoder models: runs the encoder over the document, once, before the first token, and its rows
  /// through the decoder (Terraformer) or through the maps of cross attention. A document is token ids, of
  /// which padding at the end is dropped, or rows for an encoder with `d_input`. It replaces an earlier
  /// document and empties the context. Throws Error{kBadToken, kBadArgument, kContextFull, kBadConfig} before
  /// any change, Error{kCancelled} soon after `progress` returned false: while the encoder runs the session
  /// stays as it was, afterwards it is empty.
  void encode(const EncoderInput& document, const Progress& progress = {});
  /// Where the time of the last encode() went.
  DocumentTimes document_times() const noexcept;

  /// Appends tokens. Throws Error{kBadToken, kContextFull} before any change, Error{kCancelled} keeping the
  /// tokens done so far (see position()).
  void prefill(std::span<const TokenId> tokens, const Progress& progress = {}, const LogitsSink& sink = {});

  /// Feeds one token and returns the logits that follow it [vocab_size], valid until the next call.
  /// Throws Error{kBadToken, kContextFull} before any change.
  std::span<const float> decode(TokenId token);

  /// Feeds one token and returns the first of the most likely ones to follow it: what a sampler with
  /// temperature 0 takes from decode(). Logits are not written; logits() computes them when asked. Throws as
  /// decode(), and Error{kBadArgument} after the token was fed if all logits are NaN or -inf.
  TokenId decode_greedy(TokenId token);

  /// Feeds up to kMostVerified tokens in one pass, after which rewind() to any position in between recomputes
  /// nothing: for tokens that may turn out wrong. `sink`, if given, receives the logits that follow each of
  /// them once all are in the context. Throws as prefill(), and Error{kBadArgument} for no tokens or too
  /// many. Cost: that of prefill(), and a copy of the recurrent state per token.
  void verify(std::span<const TokenId> tokens, const LogitsSink& sink);
  static constexpr std::size_t kMostVerified = 16;
  /// Makes rewind() to this position recompute nothing, until the next verify() or mark().
  void mark();

  /// The logits after the last token. Throws Error{kBadArgument} when the context is empty.
  std::span<const float> logits() const;

  /// Keeps the thread team together while alive: hold one around a loop of decode() calls (re-opening a team
  /// costs tens of microseconds). Meanwhile the calling thread flushes denormals to zero, and regions must end
  /// in the reverse order of their beginnings.
  [[nodiscard]] ThreadTeam::Region hold();

  std::size_t position() const noexcept;             ///< tokens in the context
  std::size_t max_context() const noexcept;          ///< tokens
  std::size_t max_encoder_tokens() const noexcept;   ///< longest document that encode() accepts
  std::span<const TokenId> tokens() const noexcept;  ///< those fed so far
  std::size_t encoder_length() const noexcept;       ///< tokens of the encoded document

  /// Goes back to the first `position` tokens, exactly. K/V are cut; recurrent state comes from the mark of
  /// that position (verify(), mark()), or from the latest snapshot before it, and then at most
  /// kSnapshotInterval tokens are recomputed. Throws Error{kBadArgument}.
  void rewind(std::size_t position);
  static constexpr std::size_t kSnapshotInterval = 128;

  /// An independent copy. Full pages of K/V are shared until one side rewinds into them.
  Session fork() const;
  /// The same on a Runtime of its own, so that both can run at the same time on threads of the caller.
  Session fork(Runtime& runtime) const;

  /// Writes all state to a file that a session of the same model can load(); it is written beside the target
  /// and renamed, so an older file survives an error. Throws Error{kIo}.
  void save(const std::string& path) const;
  /// Replaces the state, but not the options: the file does not say whether attention was exact. Recomputes
  /// nothing. Throws Error{kIo, kBadFile, kBadArgument (another model),
  /// kContextFull}; after an error the session is as before.
  void load(const std::string& path);
  /// How the state in the file keeps keys and values; the session that loads it must do the same. Reads only
  /// the beginning of the file. Throws Error{kIo, kBadFile}.
  static KvType saved_kv_type(const std::string& path);

  /// Nested widths: feed-forward units that later tokens use, one number for all blocks or one per block.
  /// Weights are not copied; what is in the context stays. Throws Error{kBadArgument} for widths the model
  /// was not trained for, unless `allow_untrained` (any whole number of controller blocks, multiples of 64 in
  /// a dense model).
  void set_width(std::span<const std::uint32_t> widths, bool allow_untrained = false);

  /// The widths of later tokens, per decoder block.
  std::span<const std::uint32_t> widths() const noexcept;

  /// From now on tells `profile` what time is spent on; null stops that. It must outlive the session or be
  /// unset.
  void set_profile(Profile* profile) noexcept;
  /// From now on shows rows of the decoder to `observer`, in the same way.
  void set_observer(RowObserver* observer) noexcept;

  StateBytes state_bytes() const noexcept;

  /// Mixture-of-Depths: for every routed block, the share of the context's tokens that ran it; empty for
  /// other models and for an empty context.
  std::vector<double> routed_shares() const;
  const Model& model() const noexcept;

 private:
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace terrace
