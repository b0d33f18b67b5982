// SPDX-License-Identifier: Apache-2.0
#include "models/session_impl.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "engine/error.h"
#include "engine/tile_scope.h"
#include "models/position_builder.h"

namespace terrace {
namespace {

std::size_t checked_context(std::size_t wanted, std::size_t limit, std::size_t fallback) {
  TERRACE_CHECK(
      wanted <= limit, kBadArgument,
      fmt::format("a context of {} tokens asked for, but the model's positions end at {}", wanted, limit));
  return wanted ? wanted : std::min(limit, fallback);
}

/// Refuses stacks with a layer that has no token-by-token form.
void check_steps(const StackConfig& stack) {
  using Kind = AttentionConfig::Kind;
  for (const AttentionConfig& a : stack.attention) {
    const bool hashed = a.kind == Kind::kLsh || a.kind == Kind::kPureLsh || a.kind == Kind::kMixedLsh;
    TERRACE_CHECK(
        !hashed || !a.n_buckets.empty(), kUnsupported,
        "this model's LSH attention has no explicit n_buckets, so it has no token-by-token form; it "
        "can only be evaluated over whole sequences");
  }
}

/// Scratch of one session. Reserved, not committed: what passes do not touch costs nothing. The layers take a
/// few buffers of the model's widest row per row of a pass; the constant part covers attention's per-thread
/// scratch.
std::size_t workspace_bytes(const ModelConfig& config, const Network& network, std::size_t max_slots,
                            std::size_t max_document) {
  const std::size_t rows = std::max(EncodeContext::kRowsPerBlock, Session::kSnapshotInterval);
  const std::size_t widest =
      2 * std::size_t{config.d_ff} + 64 * network.decoder().max_width() + config.vocab_size;
  const std::size_t padding = network.encoder() ? network.encoder()->length_multiple() : 0;
  const std::size_t attention = attention_scratch_bytes(config, max_slots, max_document + padding);
  return (std::size_t{1} << 30) + rows * 4 * sizeof(float) * widest + attention;
}

}  // namespace

Session::Impl::Impl(std::shared_ptr<const Model> shared, Runtime& r, const Options& o)
    : model(std::move(shared)),
      runtime(&r),
      options(o),
      width_history(network().decoder().blocks().size()),
      hidden(network().final_width()),
      marks(kMostVerified, network().decoder_state().recurrent.size(), hidden.size()) {
  const ModelConfig& config = model->config();
  check_steps(config.decoder);
  options.max_context =
      checked_context(o.max_context, position_limit(config, config.decoder), config.max_context);
  if (config.encoder) {
    const std::size_t wanted = o.max_encoder_tokens ? o.max_encoder_tokens : config.max_context;
    options.max_encoder_tokens = std::min(wanted, position_limit(config, *config.encoder));
  }
  workspace = Workspace(workspace_bytes(config, network(), max_slots(), options.max_encoder_tokens));
  for (const Block& block : network().decoder().blocks()) {
    widths.push_back(static_cast<std::uint32_t>(block.ff().default_width()));
  }
  tokens.reserve(options.max_context);
  logits.resize(config.vocab_size);
}

std::size_t Session::Impl::max_slots() const noexcept {
  const bool joined = model->config().family == Family::kTerraformer;
  return options.max_context + (joined ? options.max_encoder_tokens : 0);
}

void Session::Impl::reserve_caches() {
  state = StackState(network().decoder_state(), options.kv_type, max_slots());
  if (options.exact_attention) state.attend_all();
  snapshots = Snapshots(recurrent_floats(), n_snapshots(options.max_context));
  for (const Block& block : network().decoder().blocks()) {
    if (!block.cross()) continue;
    const KvSpec spec = block.cross()->kv_spec();
    cross.emplace_back(spec.n_heads, spec.d_k, spec.d_v, options.kv_type, options.max_encoder_tokens);
  }
}

std::unique_ptr<Session::Impl> Session::Impl::without_caches(Runtime& r) const {
  auto copy = std::make_unique<Impl>(model, r, options);
  copy->widths = widths;
  return copy;
}

void Session::Impl::take_snapshot() {
  if (tokens.size() % kSnapshotInterval != 0 || recurrent_floats() == 0) return;
  const std::optional<std::size_t> mark = marks.find(tokens.size());
  snapshots.put(tokens.size() / kSnapshotInterval, mark ? marks.recurrent_of(*mark) : state.recurrent());
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
  snapshots.cut(0);
  marks.clear();
  encoder_rows = document_length = 0;
  document_times = {};
  tokens.clear();
  width_history.cut(0);
  take_snapshot();
}

void Session::Impl::pass(std::span<const TokenId> ids, std::size_t first_row, const LogitsSink* sink,
                         bool marked) {
  Exec e = exec();
  const Network& net = network();
  const Workspace::Scope scope(workspace);
  std::optional<TileScope> tiles(std::in_place);
  width_history.note(tokens.size(), widths);
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
  tiles.reset();
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

void Session::Impl::replay(std::size_t begin, std::size_t position) {
  const std::vector<TokenId> again(tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                                   tokens.begin() + static_cast<std::ptrdiff_t>(position));
  const WidthHistory history = width_history;
  const std::vector<std::uint32_t> current = widths;
  tokens.resize(begin);
  history.for_runs(begin, position, [&](std::size_t first, std::size_t end, auto of_run) {
    std::copy(of_run.begin(), of_run.end(), widths.begin());
    feed(std::span(again).subspan(first - begin, end - first), {}, nullptr);
  });
  widths = current;
  width_history.cut(position);  // all of it where nothing was computed again
}

std::span<const float> Session::Impl::logits_of_last() {
  if (has_logits || tokens.empty()) return logits;
  const ThreadTeam::Region region(runtime->team());
  const TileScope tiles;
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
  const Clock::time_point start = Clock::now();
  const Network::Encoded encoded = net.encode(e, padded, n_real, tick);
  const Clock::time_point middle = Clock::now();
  clear();
  try {
    take_encoded(encoded, n_real, tick);
  } catch (...) {
    clear();
    throw;
  }
  take_snapshot();
  document_length = n_real;
  document_times = {seconds(middle - start), seconds(Clock::now() - middle)};
}

}  // namespace terrace
