// SPDX-License-Identifier: Apache-2.0
#include "models/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "engine/error.h"
#include "models/network.h"
#include "models/position_builder.h"
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

void check_ids(std::span<const TokenId> ids, std::uint32_t vocabulary) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    TERRACE_CHECK(ids[i] >= 0 && static_cast<std::uint32_t>(ids[i]) < vocabulary, kBadToken,
                  fmt::format("token {} of the input is {}; ids are 0 to {}", i, ids[i], vocabulary - 1));
  }
}

void check_length(const char* what, std::size_t n, std::size_t limit) {
  TERRACE_CHECK(n <= limit, kContextFull,
                fmt::format("{} has {} tokens, but the model's positions end at {}", what, n, limit));
}

/// Keys and values of cross attention, per block.
std::vector<KvCache> cross_caches(Exec& exec, const Network& net, ConstRows rows, KvType kv_type) {
  std::vector<KvCache> caches;
  for (const Block& block : net.decoder().blocks()) {
    const KvSpec spec = block.cross()->kv_spec();
    caches.emplace_back(spec.n_heads, spec.d_k, spec.d_v, kv_type, rows.n);
    for (std::size_t begin = 0; begin < rows.n; begin += EncodeContext::kRowsPerBlock) {
      const std::size_t count = std::min(EncodeContext::kRowsPerBlock, rows.n - begin);
      block.project_encoder(exec, rows.slice(begin, count), caches.back());
    }
  }
  return caches;
}

/// evaluate() where some layer's whole-sequence form differs from its steps.
void evaluate_whole(const Model& model, Runtime& runtime, std::span<const TokenId> ids,
                    const Document* document,
                    const std::function<void(std::size_t, std::span<const float>)>& sink, KvType kv_type) {
  const ModelConfig& config = model.config();
  const Network& net = model.network();
  const ThreadTeam::Region region(runtime.team());
  const std::size_t multiple = net.decoder().length_multiple();
  const bool joined = document != nullptr && config.family == Family::kTerraformer;
  const std::size_t n_encoder = joined ? length_of(document->padded()) : 0;
  const std::size_t n_rows = (n_encoder + ids.size() + multiple - 1) / multiple * multiple;
  const std::size_t n_decoder = n_rows - n_encoder;
  const std::size_t n_document = document ? length_of(document->padded()) : 0;
  const std::size_t attention = attention_scratch_bytes(config, n_rows, n_document);
  Workspace workspace((std::size_t{4} << 30) + 64 * n_rows * net.decoder().max_width() + attention);
  Exec exec{runtime.team(), workspace};

  const std::size_t stride = net.decoder().max_width();
  const std::size_t width = embedding_width(config);
  const bool reversible = joined || config.family == Family::kReformerLm;
  const WholeRows first(n_rows, stride, "the decoder's rows");
  const WholeRows second(reversible ? n_rows : 0, stride, "the decoder's second stream");
  const auto narrow = [&](const WholeRows& rows) { return Rows{rows.rows().data, n_rows, width, stride}; };
  Streams streams{narrow(first), reversible ? narrow(second) : Rows{}};

  std::vector<TokenId> padded(ids.begin(), ids.end());
  padded.resize(n_decoder, padding_id(config));
  const RowTick no_tick;
  std::optional<Network::Encoded> encoded;
  if (document) encoded = net.encode(exec, document->padded(), document->n_real(), no_tick);
  std::vector<KvCache> cross;
  if (joined) {
    const WholeRows embedded(n_decoder, stride, "the decoder's embedding");
    Streams decoder{{embedded.rows().data, n_decoder, width, stride}, {}};
    net.embed(exec, padded, 0, decoder);
    concatenate_with_padding(encoded->streams().x1, decoder.x1, document->n_real(), streams.x1);
    concatenate_with_padding(encoded->streams().x2, decoder.x1, document->n_real(), streams.x2);
  } else {
    net.embed(exec, padded, 0, streams);
    if (document)
      cross = cross_caches(exec, net, encoded->streams().x1.slice(0, document->n_real()), kv_type);
  }
  EncodeContext context{exec, n_rows, no_tick};
  StackState state(net.decoder_state(), kv_type, n_rows);
  net.decoder().evaluate(context, streams, state, cross);

  const std::size_t start = joined ? document->n_real() : 0;
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
              const EncoderInput* document,
              const std::function<void(std::size_t, std::span<const float>)>& sink, KvType kv_type) {
  const ModelConfig& config = model.config();
  TERRACE_CHECK(model.has_encoder() == (document != nullptr), kBadArgument,
                model.has_encoder() ? "this model needs the encoder's input" : "this model has no encoder");
  check_ids(ids, config.vocab_size);
  if (ids.empty()) return;
  check_length("the text", ids.size(), position_limit(config, config.decoder));
  if (document) check_length("the document", length_of(*document), position_limit(config, *config.encoder));
  if (!steps_equal_evaluation(model)) {
    std::optional<Document> padded;
    if (document) {
      const std::size_t multiple = model.network().encoder()->length_multiple();
      padded.emplace(config, *document, multiple, Document::Padding::kKeep);
    }
    return evaluate_whole(model, runtime, ids, padded ? &*padded : nullptr, sink, kv_type);
  }
  const std::shared_ptr<const Model> borrowed(std::shared_ptr<const Model>(), &model);
  Session session(borrowed, runtime,
                  {.max_context = ids.size(),
                   .kv_type = kv_type,
                   .max_encoder_tokens = document ? length_of(*document) : 0});
  if (document) session.encode(*document);
  session.prefill(ids, {}, sink);
}

}  // namespace terrace
