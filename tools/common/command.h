// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <stdexcept>

#include "engine/error.h"

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

/// Runs fn. What the library says about a bad argument becomes a usage error of the flag that gave it.
template <class F>
auto blame(const std::string& flag, F&& fn) {
  try {
    return fn();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadArgument) throw;
    throw UsageError(flag + ": " + error.what());
  }
}

// Each adds one subcommand to `app`. Parsing it stores its work in `action`.
void add_generate(CLI::App& app, Action& action);
void add_logits(CLI::App& app, Action& action);
void add_perplexity(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_plan(CLI::App& app, Action& action);
void add_init(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_verify(CLI::App& app, Action& action);
void add_quantize(CLI::App& app, Action& action);
void add_moefy(CLI::App& app, Action& action);
void add_tokenize(CLI::App& app, Action& action);
void add_detokenize(CLI::App& app, Action& action);

}  // namespace terrace::tools
