// SPDX-License-Identifier: Apache-2.0
// The library in one page: load a model, read a prompt, stream the text that follows.
//   example_generate MODEL PROMPT [N_TOKENS]
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "engine/error.h"
#include "models/sampler.h"
#include "models/session.h"

namespace {

void generate(const std::string& path, const std::string& prompt, int n_tokens) {
  // The model is immutable and shared; the session holds everything that a token changes; the runtime holds
  // threads.
  const auto model = terrace::Model::load(path);
  terrace::Runtime runtime;
  terrace::Session session(model, runtime);

  std::vector<terrace::TokenId> ids = model->tokenizer().encode(prompt);
  if (model->config().tokens.start >= 0) ids.insert(ids.begin(), model->config().tokens.start);
  session.prefill(ids);

  // The stream decoder has seen the prompt, so that the text goes on where it ended.
  const auto text = model->tokenizer().stream_decoder();
  for (const terrace::TokenId id : ids) text->push(id);

  terrace::Sampler sampler({.temperature = 0.8, .seed = 1}, model->config().vocab_size);
  const auto region = session.hold();  // keeps the threads together for the whole loop
  for (int i = 0; i < n_tokens && session.position() < session.max_context(); ++i) {
    const terrace::TokenId id = sampler.sample(session.logits(), session.tokens());
    if (id == model->config().tokens.end) break;
    std::cout << text->push(id) << std::flush;
    session.decode(id);
  }
  std::cout << text->finish() << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: example_generate MODEL PROMPT [N_TOKENS]\n";
    return 2;
  }
  try {
    generate(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 64);
    return 0;
  } catch (const terrace::Error& error) {
    std::cerr << "example_generate: " << error.what() << '\n';
    return 1;
  }
}
