// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "engine/memory.h"
#include "engine/serial.h"
#include "models/marks.h"
#include "models/network.h"
#include "models/session.h"
#include "models/session_state.h"
#include "models/snapshots.h"
#include "models/width_history.h"

namespace terrace {

/// The state behind Session and what its parts (session.cpp, session_file.cpp) share.
struct Session::Impl {
  /// Without caches and snapshots: a fork takes those of its parent.
  Impl(std::shared_ptr<const Model> shared, Runtime& r, const Options& o);
  void reserve_caches();
  /// An empty session of the same model, options and widths, without caches too.
  std::unique_ptr<Impl> without_caches(Runtime& r) const;

  std::shared_ptr<const Model> model;
  Runtime* runtime;
  Options options;
  std::vector<std::uint32_t> widths;  ///< feed-forward units per decoder block, of later tokens

  // What a token changes.
  StackState state;
  std::vector<KvCache> cross;    ///< encoder keys and values per block; family transformer
  std::size_t encoder_rows = 0;  ///< slots that the document takes in the decoder's caches (terraformer)
  std::size_t document_length = 0;
  DocumentTimes document_times;
  std::vector<TokenId> tokens;
  WidthHistory width_history;  ///< of `tokens`
  std::vector<float> hidden;   ///< row that the final norm sees, of the last token
  std::vector<float> logits;   ///< of the last token, if has_logits
  bool has_logits = false;     ///< false after decode_greedy(); then `hidden` can make them
  Snapshots snapshots;         ///< at every multiple of kSnapshotInterval tokens
  Marks marks;

  Workspace workspace;
  Profile* profile = nullptr;
  RowObserver* observer = nullptr;

  const Network& network() const noexcept { return model->network(); }
  Exec exec() noexcept { return {runtime->team(), workspace, profile, observer}; }
  /// Those of the first `n_tokens` tokens.
  static std::size_t n_snapshots(std::size_t n_tokens) noexcept { return n_tokens / kSnapshotInterval + 1; }
  /// Places in the decoder's caches.
  std::size_t max_slots() const noexcept;
  std::size_t recurrent_floats() const noexcept { return state.recurrent().size(); }

  void check_tokens(std::span<const TokenId> ids) const;
  /// Cuts caches and snapshots to the first `position` tokens; all else is the caller's to restore.
  void truncate(std::size_t position) {
    state.truncate(encoder_rows + position);
    snapshots.cut(n_snapshots(position));
  }
  /// Forgets document and tokens.
  void clear();
  /// Runs the stack over at most kPassRows tokens; `sink` may be null. They do not cross a snapshot, unless
  /// the pass is `marked`: then it fills the marks after the one that is there.
  void pass(std::span<const TokenId> ids, std::size_t first_row, const LogitsSink* sink, bool marked = false);
  /// Prefills the encoder's rows into the decoder, or projects them for cross attention.
  void take_encoded(const Network::Encoded& encoded, std::size_t n_real, const RowTick& tick);
  /// Logits are not computed yet.
  void feed(std::span<const TokenId> ids, const Progress& progress, const LogitsSink* sink);
  /// Recomputes tokens [begin, position), each with the widths that it had. The state is that of `begin`.
  void replay(std::size_t begin, std::size_t position);
  void encode(const EncoderInput& input, const Progress& progress);
  std::span<const float> logits_of_last();
  /// Takes a snapshot if one is due after the last token.
  void take_snapshot();
  void set_mark() noexcept { marks.start(tokens.size(), state.recurrent(), hidden); }

  void save(ByteSink& sink) const;
  void load(ByteSource& source);

  /// Rows per pass of a prefill: enough that every weight byte read serves many tokens, few enough that
  /// cancelling is quick and the activations stay in cache.
  static constexpr std::size_t kPassRows = 128;
  static_assert(kSnapshotInterval % kPassRows == 0);
};

}  // namespace terrace
