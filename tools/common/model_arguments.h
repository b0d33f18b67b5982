// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/runtime.h"
#include "models/model.h"
#include "models/session.h"
#include "tools/common/npy.h"

namespace terrace::tools {

/// -t with several numbers, for commands that compare.
void add_thread_counts(CLI::App& command, std::vector<unsigned>& to);
/// --kv-type, checked, with the default of `to`.
void add_kv_type(CLI::App& command, std::string& to);
/// The type that --kv-type names; kAutoKvType follows the weights: f32 or bf16 as they are, q8 where they are
/// quantised.
KvType kv_type_for(const std::string& name, const Model& model);
KvType kv_type_for(const std::string& name, DType weights);
/// What --kv-type takes.
std::vector<std::string> kv_type_names();
inline constexpr const char* kAutoKvType = "auto";

/// -m, -t, -c: what every subcommand that runs a model takes.
struct ModelArguments {
  std::string model;
  unsigned threads = 0;               ///< 0 = one per physical core
  std::uint32_t context = 0;          ///< 0 = the model's own
  std::string kv_type = kAutoKvType;  ///< how keys and values are kept
  bool exact_attention = false;       ///< of LSH layers
  std::vector<std::uint32_t> widths;  ///< feed-forward units in use, one number or one per block; empty = all

  void add_model(CLI::App& command);
  void add_threads(CLI::App& command);
  void add_session(CLI::App& command);  ///< -c, --kv-type, --width

  // Both warn on stderr of what will be slow (warnings.h).
  /// Checks the scales of a quantised file too, unless they take more than 64 MB.
  std::shared_ptr<const Model> load() const;
  Runtime::Options runtime() const;
  /// What --width says, if it was given. Throws UsageError for widths that the model does not have.
  void set_width(Session& session) const;
  /// `document_length`: of the encoder's input, where it is known and may be longer than the model's context.
  /// Throws UsageError where -c or --width is more than the model has.
  Session open_session(std::shared_ptr<const Model> loaded, Runtime& runtime,
                       std::size_t document_length = 0) const;
};

/// What a model is given to read: ids, or rows for an encoder that takes rows.
struct Prompt {
  std::string source;  ///< flag or file, for messages
  std::vector<TokenId> ids;
  std::optional<NpyMatrix> rows;

  std::size_t size() const noexcept { return rows ? rows->rows : ids.size(); }
  EncoderInput document() const noexcept;
};

/// -p, -f, --tokens, --encoder-vectors: exactly one source of text, ids or rows.
struct PromptArguments {
  std::optional<std::string> text;
  std::optional<std::string> text_file;
  std::optional<std::string> token_file;
  std::optional<std::string> vector_file;

  void add(CLI::App& command);
  bool given() const { return text || text_file || token_file || vector_file; }

  /// Text goes through the model's tokenizer. Throws Error{kIo, kBadFile, kBadToken, kUnsupported,
  /// kCancelled} and, when there is nothing in it, UsageError for -p and Error{kBadFile} for a file.
  Prompt read(const std::shared_ptr<const Model>& model) const;
};

/// More threads than this are a typing error; the team accepts no more.
inline constexpr unsigned kMaxThreads = 1024;

}  // namespace terrace::tools
