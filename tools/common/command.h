// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <stdexcept>

namespace CLI {  // NOLINT(readability-identifier-naming): the library's
class App;
}

namespace terrace::tools {

/// What a subcommand does once its arguments are read. Throws on failure; main() turns that into one line and
/// a status.
using Action = std::function<void()>;

/// A wrong command line: exit status 2. The message names the flag, what was expected and what was found.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Each adds one subcommand to `app`. Parsing it stores its work in `action`.
void add_generate(CLI::App& app, Action& action);
void add_logits(CLI::App& app, Action& action);
void add_perplexity(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_init(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_verify(CLI::App& app, Action& action);
void add_quantize(CLI::App& app, Action& action);
void add_moefy(CLI::App& app, Action& action);
void add_tokenize(CLI::App& app, Action& action);
void add_detokenize(CLI::App& app, Action& action);

}  // namespace terrace::tools
