// SPDX-License-Identifier: Apache-2.0
#include "models/session.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/error.h"
#include "engine/tile_scope.h"
#include "models/session_impl.h"
#include "models/widths.h"

namespace terrace {

Session::Session(std::shared_ptr<const Model> model, Runtime& runtime, const Options& options)
    : impl_(std::make_unique<Impl>(std::move(model), runtime, options)) {
  impl_->reserve_caches();
}
Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

void Session::encode(const EncoderInput& document, const Progress& progress) {
  impl_->encode(document, progress);
}

DocumentTimes Session::document_times() const noexcept { return impl_->document_times; }

void Session::prefill(std::span<const TokenId> tokens, const Progress& progress, const LogitsSink& sink) {
  impl_->check_tokens(tokens);
  const ThreadTeam::Region region(impl_->runtime->team());
  impl_->feed(tokens, progress, sink ? &sink : nullptr);
  impl_->logits_of_last();
}

std::span<const float> Session::decode(TokenId token) {
  const std::span<const TokenId> one(&token, 1);
  impl_->check_tokens(one);
  const ThreadTeam::Region region(impl_->runtime->team());
  impl_->feed(one, {}, nullptr);
  return impl_->logits_of_last();
}

TokenId Session::decode_greedy(TokenId token) {
  Impl& s = *impl_;
  const std::span<const TokenId> one(&token, 1);
  s.check_tokens(one);
  const ThreadTeam::Region region(s.runtime->team());
  s.feed(one, {}, nullptr);
  const TileScope tiles;
  Exec e = s.exec();
  const Largest best = s.network().largest_logit(e, {s.hidden.data(), 1, s.hidden.size(), s.hidden.size()});
  TERRACE_CHECK(best.index != Largest::kNowhere, kBadArgument,
                fmt::format("no token can follow position {}: all logits are NaN or -inf", s.tokens.size()));
  return static_cast<TokenId>(best.index);
}

void Session::verify(std::span<const TokenId> tokens, const LogitsSink& sink) {
  Impl& s = *impl_;
  TERRACE_CHECK(!tokens.empty() && tokens.size() <= kMostVerified, kBadArgument,
                fmt::format("verify: expected 1 to {} tokens, found {}", kMostVerified, tokens.size()));
  s.check_tokens(tokens);
  const ThreadTeam::Region region(s.runtime->team());
  s.set_mark();
  s.pass(tokens, 0, sink ? &sink : nullptr, true);
}

void Session::mark() { impl_->set_mark(); }

std::span<const float> Session::logits() const {
  TERRACE_CHECK(!impl_->tokens.empty(), kBadArgument, "no token was fed yet, so there are no logits");
  return impl_->logits_of_last();
}

ThreadTeam::Region Session::hold() { return ThreadTeam::Region(impl_->runtime->team()); }

std::size_t Session::position() const noexcept { return impl_->tokens.size(); }
std::size_t Session::max_context() const noexcept { return impl_->options.max_context; }
std::span<const TokenId> Session::tokens() const noexcept { return impl_->tokens; }
std::size_t Session::max_encoder_tokens() const noexcept { return impl_->options.max_encoder_tokens; }
std::size_t Session::encoder_length() const noexcept { return impl_->document_length; }
const Model& Session::model() const noexcept { return *impl_->model; }

void Session::rewind(std::size_t position) {
  Impl& s = *impl_;
  TERRACE_CHECK(position <= s.tokens.size(), kBadArgument,
                fmt::format("cannot rewind to {}: the context has {} tokens", position, s.tokens.size()));
  if (position == s.tokens.size()) return;
  if (const std::optional<std::size_t> mark = s.marks.find(position)) {
    s.truncate(position);
    const std::span<const float> recurrent = s.marks.recurrent_of(*mark), hidden = s.marks.hidden_of(*mark);
    std::copy(recurrent.begin(), recurrent.end(), s.state.recurrent().begin());
    std::copy(hidden.begin(), hidden.end(), s.hidden.begin());
    s.tokens.resize(position);
    s.width_history.cut(position);
    s.has_logits = false;
    s.marks.cut(position);
    return;
  }
  // Without recurrent state only the last token is computed again, for its logits.
  const std::size_t last = position == 0 ? 0 : position - 1;
  const std::size_t restart = s.recurrent_floats() ? last / kSnapshotInterval * kSnapshotInterval : last;
  s.marks.cut(restart);
  s.truncate(restart);
  if (s.recurrent_floats()) {
    const std::span<const float> from = s.snapshots.at(restart / kSnapshotInterval);
    std::copy(from.begin(), from.end(), s.state.recurrent().begin());
  }
  s.replay(restart, position);
  s.logits_of_last();
}

Session Session::fork() const { return fork(*impl_->runtime); }

Session Session::fork(Runtime& runtime) const {
  const Impl& s = *impl_;
  auto copy = s.without_caches(runtime);
  copy->state = s.state.fork();
  copy->snapshots = s.snapshots.fork(Impl::n_snapshots(s.tokens.size()));
  for (const KvCache& cache : s.cross) copy->cross.push_back(cache.fork());
  copy->encoder_rows = s.encoder_rows;
  copy->document_length = s.document_length;
  copy->document_times = s.document_times;
  copy->tokens.assign(s.tokens.begin(), s.tokens.end());
  copy->width_history = s.width_history;
  copy->width_history.make_room();
  copy->hidden = s.hidden;
  copy->logits = s.logits;
  copy->has_logits = s.has_logits;
  return Session(std::move(copy));
}

void Session::set_width(std::span<const std::uint32_t> widths, bool allow_untrained) {
  Impl& s = *impl_;
  const std::span<const Block> blocks = s.network().decoder().blocks();
  check_n_widths(widths.size(), blocks.size());
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto d_ff = static_cast<std::uint32_t>(blocks[i].ff().d_ff());
    check_width(s.model->config().decoder.ff, d_ff, i, width_of(widths, i), allow_untrained);
  }
  s.width_history.make_room();
  for (std::size_t i = 0; i < blocks.size(); ++i) s.widths[i] = width_of(widths, i);
}

std::span<const std::uint32_t> Session::widths() const noexcept { return impl_->widths; }

void Session::set_profile(Profile* profile) noexcept { impl_->profile = profile; }
void Session::set_observer(RowObserver* observer) noexcept { impl_->observer = observer; }

StateBytes Session::state_bytes() const noexcept {
  const Impl& s = *impl_;
  StateBytes bytes;
  bytes.kv_cache = s.state.cache_bytes();
  for (const KvCache& cache : s.cross) bytes.kv_cache += cache.bytes();
  bytes.recurrent = s.recurrent_floats() * sizeof(float);
  if (bytes.recurrent) bytes.snapshots = Impl::n_snapshots(s.tokens.size()) * bytes.recurrent;
  bytes.snapshots += s.marks.bytes();
  bytes.workspace = s.workspace.high_water_bytes();
  return bytes;
}

std::vector<double> Session::routed_shares() const {
  std::vector<double> shares;
  if (impl_->tokens.empty()) return shares;
  const auto n_tokens = static_cast<double>(impl_->tokens.size());
  for (const Block& block : impl_->network().decoder().blocks()) {
    if (block.route() == kEveryToken) continue;
    shares.push_back(static_cast<double>(impl_->state.route(block.route()).n_slots()) / n_tokens);
  }
  return shares;
}

}  // namespace terrace
