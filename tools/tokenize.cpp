// SPDX-License-Identifier: Apache-2.0
// terrace tokenize, terrace detokenize: text to ids and back, with the tokenizer inside a model file.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "models/model.h"
#include "models/utf8.h"
#include "tools/common/command.h"
#include "tools/common/encode_text.h"
#include "tools/common/input.h"
#include "tools/common/json_text.h"
#include "tools/common/model_arguments.h"
#include "tools/common/output.h"

namespace terrace::tools {
namespace {

struct TokenizeOptions {
  ModelArguments model;
  std::string text;
  std::string file;
  bool json = false;
};

void tokenize(const TokenizeOptions& options, bool from_file) {
  const auto model = options.model.load();
  const Tokenizer& tokenizer = need_tokenizer(*model);
  const auto ids = from_file ? encode_text(model, read_file(options.file), options.file)
                             : encode_text(model, options.text, "-p");
  if (options.json) {
    nlohmann::ordered_json tokens = nlohmann::ordered_json::array();
    for (const TokenId id : ids) {
      // One byte of a longer character is no UTF-8, and JSON holds nothing else.
      tokens.push_back({{"id", id}, {"piece", to_valid_utf8(tokenizer.piece(id))}});
    }
    write_stdout(json_text(tokens, -1));
    return;
  }
  write_stdout(fmt::format("{}\n", fmt::join(ids, " ")));
}

struct DetokenizeOptions {
  ModelArguments model;
  std::string tokens = "-";
};

void detokenize(const DetokenizeOptions& options) {
  const auto model = options.model.load();
  const Tokenizer& tokenizer = need_tokenizer(*model);
  const auto n_ids = static_cast<std::uint32_t>(tokenizer.vocab_size());
  write_stdout(tokenizer.decode(read_token_file(options.tokens, n_ids)));
}

}  // namespace

void add_tokenize(CLI::App& app, Action& action) {
  const auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = app.add_subcommand("tokenize", "Print the token ids of a text");
  options->model.add_model(*command);
  auto* source = command->add_option_group("text", "The text (one of)");
  source->add_option("-p,--prompt", options->text, "The text itself")->type_name("TEXT");
  CLI::Option* file = source->add_option("-f,--file", options->file, "A text file, or - for standard input")
                          ->type_name("FILE");
  source->require_option(1);
  command->add_flag("--json", options->json, "Print ids and vocabulary entries as JSON");
  command->callback([options, file, &action] {
    action = [options, from_file = file->count() > 0] { tokenize(*options, from_file); };
  });
}

void add_detokenize(CLI::App& app, Action& action) {
  const auto options = std::make_shared<DetokenizeOptions>();
  CLI::App* command = app.add_subcommand("detokenize", "Print the text of token ids, byte for byte");
  options->model.add_model(*command);
  command->add_option("--tokens,tokens", options->tokens, "A file of token ids (default: standard input)")
      ->type_name("FILE");
  command->callback([options, &action] { action = [options] { detokenize(*options); }; });
}

}  // namespace terrace::tools
