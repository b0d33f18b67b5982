// SPDX-License-Identifier: Apache-2.0
#include "models/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "engine/error.h"
#include "models/network.h"
#include "models/session.h"

namespace terrace {
namespace {

/// Rows of logits computed at a time: bounds memory for large vocabularies.
constexpr std::size_t kLogitRows = 32;

/// Trax's ConcatWithPadding: the encoder's rows followed by room for the decoder's, with the decoder's rows
/// written from row `n_real` on. What is left behind them is the causal future of every row that counts.
void concatenate_with_padding(ConstRows encoder, ConstRows decoder, std::size_t n_real, Rows joined) {
  copy_rows(encoder, joined.slice(0, encoder.n));
  for (std::size_t t = encoder.n; t < joined.n; ++t) std::fill_n(joined.row(t), joined.width, 0.0F);
  copy_rows(decoder, joined.slice(n_real, decoder.n));
}

void check_ids(std::span<const TokenId> ids, std::uint32_t vocabulary, const char* what) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    TERRACE_CHECK(ids[i] >= 0 && static_cast<std::uint32_t>(ids[i]) < vocabulary, kBadToken,
                  fmt::format("token {} of {} is {}; ids are 0 to {}", i, what, ids[i], vocabulary - 1));
  }
}

std::size_t count_real(std::span<const TokenId> ids, TokenId pad) {
  return static_cast<std::size_t>(std::count_if(ids.begin(), ids.end(), [&](TokenId t) { return t != pad; }));
}

/// evaluate() where some layer's whole-sequence form differs from its steps.
void evaluate_whole(const Model& model, Runtime& runtime, std::span<const TokenId> ids,
                    std::span<const TokenId> encoder_ids,
                    const std::function<void(std::size_t, std::span<const float>)>& sink) {
  const ModelConfig& config = model.config();
  const Network& net = model.network();
  const ThreadTeam::Region region(runtime.team());
  const std::size_t multiple = net.decoder().length_multiple();
  const bool joined = config.family == Family::kTerraformer;
  const std::size_t n_encoder = joined ? encoder_ids.size() : 0;
  const std::size_t n_rows = (n_encoder + ids.size() + multiple - 1) / multiple * multiple;
  const std::size_t n_decoder = n_rows - n_encoder;
  Workspace workspace((std::size_t{4} << 30) + 64 * n_rows * (net.decoder().max_width() + config.n_heads));
  Exec exec{runtime.team(), workspace};

  const std::size_t stride = net.decoder().max_width();
  const std::size_t width = embedding_width(config);
  const WholeRows first(n_rows, stride, "the decoder's rows");
  const WholeRows second(n_rows, stride, "the decoder's second stream");
  const auto narrow = [&](const WholeRows& rows) { return Rows{rows.rows().data, n_rows, width, stride}; };
  Streams streams{narrow(first), narrow(second)};
  if (config.family == Family::kTransformerLm) streams.x2 = {};

  std::vector<TokenId> padded(ids.begin(), ids.end());
  padded.resize(n_decoder, config.tokens.pad);
  std::size_t start = 0;
  const std::function<void(std::size_t)> no_tick;
  if (joined) {
    const WholeRows embedded(n_decoder, stride, "the decoder's embedding");
    Streams decoder{{embedded.rows().data, n_decoder, width, stride}, {}};
    net.embed(exec, padded, 0, decoder);
    start = count_real(encoder_ids, config.tokens.pad);
    const Network::Encoded encoded = net.encode(exec, encoder_ids, start, no_tick);
    concatenate_with_padding(encoded.streams().x1, decoder.x1, start, streams.x1);
    concatenate_with_padding(encoded.streams().x2, decoder.x1, start, streams.x2);
  } else {
    net.embed(exec, padded, 0, streams);
  }
  EncodeContext context{exec, n_rows, no_tick};
  StackState state(net.decoder_state(), KvType::kF32, n_rows);
  net.decoder().evaluate(context, streams, state);

  for (std::size_t begin = 0; begin < ids.size(); begin += kLogitRows) {
    const Workspace::Scope scope(workspace);
    const std::size_t n = std::min(kLogitRows, ids.size() - begin);
    Streams part{streams.x1.slice(start + begin, n), {}};
    if (streams.reversible()) part.x2 = streams.x2.slice(start + begin, n);
    const Rows x = take_rows(exec, n, net.final_width());
    net.join_streams(exec, part, x);
    const Rows logits = take_rows(exec, n, config.vocab_size);
    net.logits(exec, x, logits);
    for (std::size_t t = 0; t < n; ++t) sink(begin + t, {logits.row(t), logits.width});
  }
}

}  // namespace

bool steps_equal_evaluation(const Model& model) noexcept {
  const Stack* encoder = model.network().encoder();
  return model.network().decoder().steps_equal_evaluation() && (!encoder || encoder->length_multiple() == 1);
}

void evaluate(const Model& model, Runtime& runtime, std::span<const TokenId> ids,
              std::span<const TokenId> encoder_ids,
              const std::function<void(std::size_t, std::span<const float>)>& sink) {
  const ModelConfig& config = model.config();
  TERRACE_CHECK(model.has_encoder() == !encoder_ids.empty(), kBadArgument,
                model.has_encoder() ? "this model needs the encoder's tokens" : "this model has no encoder");
  check_ids(ids, config.vocab_size, "the input");
  if (ids.empty()) return;
  if (model.has_encoder()) check_ids(encoder_ids, config.encoder->vocab_size, "the document");
  if (!steps_equal_evaluation(model) && config.family != Family::kTransformer) {
    return evaluate_whole(model, runtime, ids, encoder_ids, sink);
  }
  const std::shared_ptr<const Model> borrowed(std::shared_ptr<const Model>(), &model);
  Session session(borrowed, runtime, {.max_context = ids.size(), .max_encoder_tokens = encoder_ids.size()});
  if (model.has_encoder()) session.encode(encoder_ids);
  session.prefill(ids, {}, sink);
}

}  // namespace terrace
