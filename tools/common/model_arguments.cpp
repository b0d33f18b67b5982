// SPDX-License-Identifier: Apache-2.0
#include "tools/common/model_arguments.h"

#include <fmt/format.h>

#include <limits>
#include <new>
#include <utility>

#include "engine/error.h"
#include "engine/verify.h"
#include "models/stored_plan.h"
#include "tools/common/checks.h"
#include "tools/common/command.h"
#include "tools/common/encode_text.h"
#include "tools/common/input.h"
#include "tools/common/warnings.h"

namespace terrace::tools {
namespace {

/// Scales that are read in about 50 ms, or less where they are in memory.
constexpr std::uint64_t kCheckedScaleBytes = 64'000'000;

/// A session, or what it has no memory for.
Session open_or_say(std::shared_ptr<const Model> model, Runtime& runtime, const Session::Options& options) {
  try {
    return Session(std::move(model), runtime, options);
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("no memory for a context of {} positions (-c)", options.max_context));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kOutOfMemory) throw;
    throw Error(error.code(), fmt::format("{} (-c makes the context smaller)", error.what()));
  }
}

}  // namespace

void add_thread_counts(CLI::App& command, std::vector<unsigned>& to) {
  command.add_option("-t,--threads", to, "Threads, or several numbers (default: one per physical core)")
      ->delimiter(',')
      ->check(between(1U, kMaxThreads))
      ->type_name("N[,...]");
}

std::vector<std::string> kv_type_names() {
  std::vector<std::string> names{kAutoKvType};
  for (const KvType type : kKvTypes) names.emplace_back(kv_type_name(type));
  return names;
}

void add_kv_type(CLI::App& command, std::string& to) {
  command
      .add_option(
          "--kv-type", to,
          "How keys and values are kept: f32, bf16, q8 (int8, a scale per head and position), q4 (4 bits, a "
          "scale per 32 channels; q8 in LSH layers), or auto: as the weights, q8 where these are quantised")
      ->check(CLI::IsMember(kv_type_names()))
      ->capture_default_str()
      ->type_name("TYPE");
}

KvType kv_type_for(const std::string& name, const Model& model) {
  return kv_type_for(name, main_dtype(model));
}

KvType kv_type_for(const std::string& name, DType weights) {
  if (name != kAutoKvType) return parse_kv_type(name);
  switch (weights) {
    case DType::kF32:
      return KvType::kF32;
    case DType::kBf16:
      return KvType::kBf16;
    case DType::kQ8:
    case DType::kQ4:
      break;
  }
  return KvType::kQ8;
}

void ModelArguments::add_model(CLI::App& command) {
  command.add_option("-m,--model", model, "Model file")->required()->type_name("FILE");
}

void ModelArguments::add_threads(CLI::App& command) {
  command.add_option("-t,--threads", threads, "Threads (default: one per physical core)")
      ->check(between(1U, kMaxThreads))
      ->type_name("N");
}

void ModelArguments::add_session(CLI::App& command) {
  command
      .add_option("-c,--ctx-size", context, "Positions in the context (default: what the model was made for)")
      ->check(between(std::uint32_t{1}, std::numeric_limits<std::uint32_t>::max()))
      ->type_name("N");
  add_kv_type(command, kv_type);
  command
      .add_option("--width", widths, "Feed-forward units in use: one number, or one per block (default: all)")
      ->delimiter(',')
      ->check(between(std::uint32_t{1}, std::numeric_limits<std::uint32_t>::max()))
      ->type_name("N[,N...]");
}

std::shared_ptr<const Model> ModelArguments::load() const {
  auto loaded = Model::load(model);
  check_scales(loaded->file(), kCheckedScaleBytes);
  warn_about_isa(loaded->isa());
  warn_about_memory(*loaded);
  return loaded;
}

Runtime::Options ModelArguments::runtime() const {
  warn_about_threads(threads);
  return {.n_threads = threads};
}

Session ModelArguments::open_session(std::shared_ptr<const Model> loaded, Runtime& runtime,
                                     std::size_t document_length) const {
  const ModelConfig& config = loaded->config();
  const std::size_t document = document_length > config.max_context ? document_length : 0;
  const KvType kv = kv_type_for(kv_type, *loaded);
  const Session::Options options{.max_context = context,
                                 .kv_type = kv,
                                 .max_encoder_tokens = document,
                                 .exact_attention = exact_attention};
  Session session = context > 0
                        ? blame("-c", [&] { return open_or_say(std::move(loaded), runtime, options); })
                        : open_or_say(std::move(loaded), runtime, options);
  set_width(session);
  return session;
}

void ModelArguments::set_width(Session& session) const {
  if (!widths.empty()) blame("--width", [&] { session.set_width(widths); });
}

EncoderInput Prompt::document() const noexcept {
  if (rows) return rows->view();
  return std::span<const TokenId>(ids);
}

void PromptArguments::add(CLI::App& command) {
  auto* source = command.add_option_group("prompt", "Where the prompt comes from (one of)");
  source->add_option("-p,--prompt", text, "The text itself")->type_name("TEXT");
  source->add_option("-f,--file", text_file, "A text file, or - for standard input")->type_name("FILE");
  source->add_option("--tokens", token_file, "A file of token ids, or - for standard input")
      ->type_name("FILE");
  source
      ->add_option("--encoder-vectors", vector_file,
                   "A NumPy file, float32 [n, width]: rows for an encoder that takes these instead of tokens")
      ->type_name("FILE");
  source->require_option(0, 1);
}

Prompt PromptArguments::read(const std::shared_ptr<const Model>& model) const {
  const ModelConfig& config = model->config();
  if (vector_file) return {*vector_file, {}, read_npy(*vector_file)};
  if (token_file) {
    // An encoder for rows has no vocabulary, and says so.
    const std::uint32_t vocab_size = config.encoder ? config.encoder->vocab_size : config.vocab_size;
    auto ids = vocab_size > 0 ? read_token_file(*token_file, vocab_size) : read_token_file(*token_file);
    TERRACE_CHECK(!ids.empty(), kBadFile, fmt::format("{}: expected token ids, found none", *token_file));
    return {*token_file, std::move(ids), {}};
  }
  Prompt prompt{text ? "-p" : *text_file,
                encode_text(model, text ? *text : read_file(*text_file), text ? "-p" : *text_file),
                {}};
  if (!prompt.ids.empty()) return prompt;
  if (text) throw UsageError("-p: expected a text, found an empty one");
  throw Error(ErrorCode::kBadFile, fmt::format("{}: expected a text, found an empty one", *text_file));
}

}  // namespace terrace::tools
