// SPDX-License-Identifier: Apache-2.0
// One prompt, several ways on: fork shares what was read, rewind takes tokens back, save and load keep a
// session on disk. Each step checks that it equals the long way.
//   example_two_sessions MODEL PROMPT STATE_FILE
#include <iostream>
#include <string>
#include <vector>

#include "engine/error.h"
#include "models/sampler.h"
#include "models/session.h"

namespace {

using terrace::Session;
using terrace::TokenId;

/// Appends `n` greedy tokens and returns them.
std::vector<TokenId> continue_greedily(Session& session, int n) {
  terrace::Sampler sampler({.temperature = 0}, session.model().config().vocab_size);
  std::vector<TokenId> tokens;
  const auto region = session.hold();
  for (int i = 0; i < n; ++i) {
    tokens.push_back(sampler.sample(session.logits(), session.tokens()));
    session.decode(tokens.back());
  }
  return tokens;
}

bool show(const std::string& what, const std::vector<TokenId>& found, const std::vector<TokenId>& expected) {
  const bool same = found == expected;
  std::cout << what << ": " << (same ? "same tokens" : "DIFFERENT TOKENS") << '\n';
  return same;
}

bool run(const std::string& path, const std::string& prompt, const std::string& state_file) {
  constexpr int kTokens = 16;
  const auto model = terrace::Model::load(path);
  terrace::Runtime runtime;
  Session session(model, runtime);
  std::vector<TokenId> ids = model->tokenizer().encode(prompt);
  if (model->config().tokens.start >= 0) ids.insert(ids.begin(), model->config().tokens.start);
  session.prefill(ids);
  session.save(state_file);

  // A fork is independent of the session it came from; both use the runtime in turn.
  Session fork = session.fork();
  const auto expected = continue_greedily(session, kTokens);
  bool ok = show("fork", continue_greedily(fork, kTokens), expected);

  session.rewind(ids.size());
  ok &= show("rewind", continue_greedily(session, kTokens), expected);

  Session restored(model, runtime);
  restored.load(state_file);
  ok &= show("save and load", continue_greedily(restored, kTokens), expected);
  return ok;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: example_two_sessions MODEL PROMPT STATE_FILE\n";
    return 2;
  }
  try {
    return run(argv[1], argv[2], argv[3]) ? 0 : 1;
  } catch (const terrace::Error& error) {
    std::cerr << "example_two_sessions: " << error.what() << '\n';
    return 1;
  }
}
