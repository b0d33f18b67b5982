// SPDX-License-Identifier: Apache-2.0
#include "models/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

#include "engine/error.h"
#include "models/session_impl.h"

namespace terrace {
namespace {

constexpr std::size_t kMaxPositions = std::size_t{1} << 28;  // as in validate()

/// Positions a stack can tell apart: the end of its table, or where its precomputed rotations end.
std::size_t position_limit(const ModelConfig& config, const StackConfig& stack) {
  using Kind = PositionConfig::Kind;
  const bool rotary = std::any_of(stack.attention.begin(), stack.attention.end(),
                                  [](const AttentionConfig& a) { return a.rotary.has_value(); });
  if (rotary) return config.max_context;
  switch (stack.position.kind) {
    case Kind::kLearned:
    case Kind::kLowRank:
      return stack.position.max_len;
    case Kind::kAxial: {
      std::size_t n = 1;
      for (const std::uint32_t size : stack.position.shape) n *= size;
      return n;
    }
    case Kind::kInfinite:
      return config.max_context;
    default:
      return kMaxPositions;
  }
}

std::size_t checked_context(std::size_t wanted, std::size_t limit, std::size_t fallback) {
  TERRACE_CHECK(
      wanted <= limit, kBadArgument,
      fmt::format("a context of {} tokens asked for, but the model's positions end at {}", wanted, limit));
  return wanted ? wanted : std::min(limit, fallback);
}

/// Scratch of one session. Reserved, not committed: what passes do not touch costs nothing. The layers take a
/// few buffers of the model's widest row per row of a pass; the constant part covers attention's per-thread
/// scratch.
std::size_t workspace_bytes(const ModelConfig& config, const Network& network, std::size_t max_slots) {
  const std::size_t rows = std::max(EncodeContext::kRowsPerBlock, Session::kSnapshotInterval);
  const std::size_t widest =
      2 * std::size_t{config.d_ff} + 64 * network.decoder().max_width() + config.vocab_size;
  const std::size_t attention = 64 * max_slots * std::size_t{config.n_heads};
  return (std::size_t{1} << 30) + rows * 4 * sizeof(float) * widest + attention;
}

}  // namespace

Session::Impl::Impl(std::shared_ptr<const Model> shared, Runtime& r, const Options& o)
    : model(std::move(shared)),
      runtime(&r),
      options(o),
      hidden(network().final_width()),
      marks(kMostVerified, network().decoder_state().recurrent.size(), hidden.size()) {
  const ModelConfig& config = model->config();
  options.max_context =
      checked_context(o.max_context, position_limit(config, config.decoder), config.max_context);
  if (config.encoder) {
    const std::size_t wanted = o.max_encoder_tokens ? o.max_encoder_tokens : config.max_context;
    options.max_encoder_tokens = std::min(wanted, position_limit(config, *config.encoder));
  }
  const bool joined = config.family == Family::kTerraformer;
  const std::size_t max_slots = options.max_context + (joined ? options.max_encoder_tokens : 0);
  const Network& net = network();
  state = StackState(net.decoder_state(), options.kv_type, max_slots);
  if (options.exact_attention) state.attend_all();
  const std::size_t n_snapshots = options.max_context / kSnapshotInterval + 1;
  snapshots =
      VirtualBuffer(n_snapshots * recurrent_floats() * sizeof(float), "snapshots of the recurrent state");
  workspace = Workspace(workspace_bytes(config, net, max_slots));
  for (const Block& block : net.decoder().blocks()) {
    widths.push_back(static_cast<std::uint32_t>(block.ff().default_width()));
    if (!block.cross()) continue;
    const KvSpec spec = block.cross()->kv_spec();
    cross.emplace_back(spec.n_heads, spec.d_k, spec.d_v, options.kv_type, options.max_encoder_tokens);
  }
  tokens.reserve(options.max_context);
  logits.resize(config.vocab_size);
}

std::unique_ptr<Session::Impl> Session::Impl::empty_copy() const {
  auto copy = std::make_unique<Impl>(model, *runtime, options);
  copy->widths = widths;
  return copy;
}

std::span<float> Session::Impl::snapshot(std::size_t index) const noexcept {
  return snapshots.as<float>().subspan(index * recurrent_floats(), recurrent_floats());
}

void Session::Impl::take_snapshot() {
  if (tokens.size() % kSnapshotInterval != 0 || recurrent_floats() == 0) return;
  const std::optional<std::size_t> mark = marks.find(tokens.size());
  const std::span<const float> from = mark ? marks.recurrent_of(*mark) : state.recurrent();
  std::copy(from.begin(), from.end(), snapshot(tokens.size() / kSnapshotInterval).begin());
}

void Session::Impl::check_tokens(std::span<const TokenId> ids) const {
  const auto vocabulary = static_cast<TokenId>(model->config().vocab_size);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    TERRACE_CHECK(
        ids[i] >= 0 && ids[i] < vocabulary, kBadToken,
        fmt::format("token {} of the input is {}; the model's ids are 0 to {}", i, ids[i], vocabulary - 1));
  }
  TERRACE_CHECK(ids.size() <= options.max_context - tokens.size(), kContextFull,
                fmt::format("context full: {} of {} tokens are used and {} more were given", tokens.size(),
                            options.max_context, ids.size()));
  TERRACE_CHECK(!model->has_encoder() || document_length > 0, kBadArgument,
                "this model reads a document first: call encode() before feeding tokens");
}

void Session::Impl::clear() {
  state.truncate(0);
  std::fill(state.recurrent().begin(), state.recurrent().end(), 0.0F);
  for (KvCache& cache : cross) cache.truncate(0);
  marks.cut(0);
  encoder_rows = document_length = 0;
  document_times = {};
  tokens.clear();
}

void Session::Impl::pass(std::span<const TokenId> ids, std::size_t first_row, const LogitsSink* sink,
                         bool marked) {
  Exec e = exec();
  const Network& net = network();
  const Workspace::Scope scope(workspace);
  if (tokens.empty()) take_snapshot();
  Streams streams = net.take_streams(e, ids.size());
  net.embed(e, ids, tokens.size(), streams);
  const RecurrentBlock recurrent =
      marked ? marks.block_of_pass(state.recurrent()) : RecurrentBlock(state.recurrent().data());
  StepContext context{e, state, recurrent, encoder_rows + tokens.size()};
  net.decoder().forward(context, streams, widths, cross);
  const Rows joined = take_rows(e, ids.size(), hidden.size());
  net.join_streams(e, streams, joined);
  std::copy_n(joined.row(ids.size() - 1), hidden.size(), hidden.begin());
  if (marked) marks.take_pass(ids.size(), joined.data, joined.stride);
  for (const TokenId id : ids) {
    tokens.push_back(id);
    take_snapshot();
  }
  has_logits = false;
  if (!sink) return;
  const Rows rows = take_rows(e, ids.size(), logits.size());
  net.logits(e, joined, rows);
  for (std::size_t t = 0; t < ids.size(); ++t) (*sink)(first_row + t, {rows.row(t), rows.width});
}

void Session::Impl::feed(std::span<const TokenId> ids, const Progress& progress, const LogitsSink* sink) {
  const ThreadTeam::Region region(runtime->team());
  for (std::size_t done = 0; done < ids.size();) {
    const std::size_t to_snapshot = kSnapshotInterval - tokens.size() % kSnapshotInterval;
    const std::size_t n = std::min({kPassRows, to_snapshot, ids.size() - done});
    pass(ids.subspan(done, n), done, sink);
    done += n;
    if (progress && !progress(done, ids.size()) && done < ids.size()) {
      logits_of_last();
      throw Error(ErrorCode::kCancelled, fmt::format("cancelled after {} of {} tokens", done, ids.size()));
    }
  }
}

std::span<const float> Session::Impl::logits_of_last() {
  if (has_logits || tokens.empty()) return logits;
  const ThreadTeam::Region region(runtime->team());
  Exec e = exec();
  network().logits(e, {hidden.data(), 1, hidden.size(), hidden.size()},
                   {logits.data(), 1, logits.size(), logits.size()});
  has_logits = true;
  return logits;
}

void Session::Impl::take_encoded(const Network::Encoded& encoded, std::size_t n_real, const RowTick& tick) {
  Exec e = exec();
  const Network& net = network();
  const bool joined = model->config().family == Family::kTerraformer;
  const Streams rows = encoded.streams();
  for (std::size_t begin = 0; begin < n_real; begin += kPassRows) {
    const Workspace::Scope scope(workspace);
    const std::size_t n = std::min(kPassRows, n_real - begin);
    if (joined) {
      Streams streams = net.take_streams(e, n);
      copy_rows(rows.x1.slice(begin, n), streams.x1);
      copy_rows(rows.x2.slice(begin, n), streams.x2);
      StepContext context{e, state, state.recurrent().data(), begin, &tick};
      net.decoder().forward(context, streams, widths, cross);
      encoder_rows = begin + n;
    } else {
      for (std::size_t i = 0; i < cross.size(); ++i) {
        net.decoder().blocks()[i].project_encoder(e, rows.x1.slice(begin, n), cross[i]);
        tick(n);
      }
    }
  }
}

void Session::Impl::encode(const EncoderInput& input, const Progress& progress) {
  const ThreadTeam::Region region(runtime->team());
  const Network& net = network();
  TERRACE_CHECK(net.encoder(), kBadArgument, "this model has no encoder");
  const Document document(model->config(), input, net.encoder()->length_multiple(), Document::Padding::kDrop);
  const std::size_t n_real = document.n_real();
  TERRACE_CHECK(n_real <= options.max_encoder_tokens, kContextFull,
                fmt::format("the document has {} tokens, the encoder has positions 0 to {} only", n_real,
                            options.max_encoder_tokens - 1));
  clear();
  Exec e = exec();
  const EncoderInput padded = document.padded();
  const std::size_t total = net.encoder()->encode_passes() * length_of(padded) +  //
                            net.decoder().blocks().size() * n_real;
  std::size_t done = 0;
  const RowTick tick = [&](std::size_t rows) {
    done += rows;
    if (progress && !progress(std::min(n_real, done * n_real / total), n_real)) {
      throw Error(ErrorCode::kCancelled, "cancelled while reading the document");
    }
  };
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  try {
    const Clock::time_point start = Clock::now();
    const Network::Encoded encoded = net.encode(e, padded, n_real, tick);
    const Clock::time_point middle = Clock::now();
    take_encoded(encoded, n_real, tick);
    document_times = {seconds(middle - start), seconds(Clock::now() - middle)};
  } catch (...) {
    clear();
    throw;
  }
  document_length = n_real;
}

Session::Session(std::shared_ptr<const Model> model, Runtime& runtime, const Options& options)
    : impl_(std::make_unique<Impl>(std::move(model), runtime, options)) {}
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
std::size_t Session::encoder_length() const noexcept { return impl_->document_length; }
const Model& Session::model() const noexcept { return *impl_->model; }

void Session::rewind(std::size_t position) {
  Impl& s = *impl_;
  TERRACE_CHECK(position <= s.tokens.size(), kBadArgument,
                fmt::format("cannot rewind to {}: the context has {} tokens", position, s.tokens.size()));
  if (position == s.tokens.size()) return;
  if (const std::optional<std::size_t> mark = s.marks.find(position)) {
    s.state.truncate(s.encoder_rows + position);
    const std::span<const float> recurrent = s.marks.recurrent_of(*mark), hidden = s.marks.hidden_of(*mark);
    std::copy(recurrent.begin(), recurrent.end(), s.state.recurrent().begin());
    std::copy(hidden.begin(), hidden.end(), s.hidden.begin());
    s.tokens.resize(position);
    s.has_logits = false;
    s.marks.cut(position);
    return;
  }
  // Without recurrent state only the last token is computed again, for its logits.
  const std::size_t last = position == 0 ? 0 : position - 1;
  const std::size_t restart = s.recurrent_floats() ? last / kSnapshotInterval * kSnapshotInterval : last;
  s.marks.cut(restart);
  s.state.truncate(s.encoder_rows + restart);
  if (s.recurrent_floats()) {
    const std::span<const float> from = s.snapshot(restart / kSnapshotInterval);
    std::copy(from.begin(), from.end(), s.state.recurrent().begin());
  }
  const std::vector<TokenId> again(s.tokens.begin() + static_cast<std::ptrdiff_t>(restart),
                                   s.tokens.begin() + static_cast<std::ptrdiff_t>(position));
  s.tokens.resize(restart);
  s.feed(again, {}, nullptr);
  s.logits_of_last();
}

Session Session::fork() const {
  const Impl& s = *impl_;
  auto copy = s.empty_copy();
  copy->state = s.state.fork();
  for (std::size_t i = 0; i < s.cross.size(); ++i) copy->cross[i] = s.cross[i].fork();
  copy->encoder_rows = s.encoder_rows;
  copy->document_length = s.document_length;
  copy->tokens.assign(s.tokens.begin(), s.tokens.end());
  copy->hidden = s.hidden;
  copy->logits = s.logits;
  copy->has_logits = s.has_logits;
  for (std::size_t i = 0; s.recurrent_floats() && i <= s.tokens.size() / kSnapshotInterval; ++i) {
    std::copy_n(s.snapshot(i).begin(), s.recurrent_floats(), copy->snapshot(i).begin());
  }
  return Session(std::move(copy));
}

void Session::set_width(std::span<const std::uint32_t> widths, bool allow_untrained) {
  Impl& s = *impl_;
  const std::span<const Block> blocks = s.network().decoder().blocks();
  TERRACE_CHECK(
      widths.size() == 1 || widths.size() == blocks.size(), kBadArgument,
      fmt::format("one width or one per block ({}) is needed, found {}", blocks.size(), widths.size()));
  const std::vector<std::uint32_t>& trained = s.model->config().decoder.ff.widths;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::uint32_t width = widths[widths.size() == 1 ? 0 : i];
    const FeedForwardLayer& ff = blocks[i].ff();
    TERRACE_CHECK(
        ff.takes_width(width), kBadArgument,
        fmt::format("block {}: a width of {} units is impossible; it takes multiples of {} up to {}", i,
                    width, ff.width_step(), ff.d_ff()));
    const bool known = width == ff.d_ff() || ff.any_width() ||
                       std::find(trained.begin(), trained.end(), width) != trained.end();
    TERRACE_CHECK(
        known || allow_untrained, kBadArgument,
        fmt::format(
            "block {}: the model was not trained at a width of {} units; trained widths: {}", i, width,
            trained.empty() ? fmt::format("{}", ff.d_ff()) : fmt::format("{}", fmt::join(trained, ", "))));
  }
  for (std::size_t i = 0; i < blocks.size(); ++i) s.widths[i] = widths[widths.size() == 1 ? 0 : i];
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
  if (bytes.recurrent) bytes.snapshots = (s.tokens.size() / kSnapshotInterval + 1) * bytes.recurrent;
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
