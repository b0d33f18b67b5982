// SPDX-License-Identifier: Apache-2.0
#include "tools/common/sampler_arguments.h"

#include <limits>
#include <random>
#include <string>

#include "engine/error.h"
#include "tools/common/checks.h"

namespace terrace::tools {
namespace {

void set_order(SamplerConfig& sampler, const std::string& order) {
  try {
    set_sampler_order(sampler, order);
    static_cast<void>(Sampler(sampler, 1));  // refuses a step that occurs twice
  } catch (const Error& error) {
    throw CLI::ValidationError("--samplers", error.what());
  }
}

/// The sampler divides by it.
std::string check_temperature(const std::string& text) {
  constexpr double kLeast = 1e-6, kMost = 1e6;
  double value = 0;
  const bool fits = parse_number(text, value) && (value == 0 || (value >= kLeast && value <= kMost));
  return fits ? std::string()
              : fmt::format("expected 0 or a number from {} to {}, found '{}'", kLeast, kMost, text);
}

}  // namespace

void SamplerArguments::add(CLI::App& command) {
  SamplerConfig& sampler = config;
  const CLI::Validator probability = between(0.0, 1.0);
  auto* group = command.add_option_group("sampling", "How the next token is drawn");
  // First, because "hf" also sets values that the flags below may change.
  group
      ->add_option_function<std::string>(
          "--samplers", [&sampler](const std::string& order) { set_order(sampler, order); },
          "Order of the steps: llama.cpp (default), hf, or names out of "
          "penalties,top_k,top_p,min_p,temperature")
      ->type_name("ORDER");
  group->add_option("--temp", sampler.temperature, "Temperature; 0 takes the most likely token")
      ->check(CLI::Validator(check_temperature, ""))
      ->type_name("X")
      ->capture_default_str();
  group->add_option("--top-k", sampler.top_k, "Keep the K most likely tokens; 0 keeps all")
      ->check(between(0, std::numeric_limits<std::int32_t>::max()))
      ->type_name("X")
      ->capture_default_str();
  group
      ->add_option("--top-p", sampler.top_p,
                   "Keep the most likely tokens that together reach this probability")
      ->check(probability)
      ->type_name("X")
      ->capture_default_str();
  group
      ->add_option("--min-p", sampler.min_p,
                   "Keep tokens at least this likely, relative to the most likely one")
      ->check(probability)
      ->type_name("X")
      ->capture_default_str();
  group
      ->add_option("--repeat-penalty", sampler.repeat_penalty,
                   "Divide the logits of recent tokens by this; 1 changes nothing")
      ->check(between(1e-6, 1e6))
      ->type_name("X")
      ->capture_default_str();
  group->add_option("--repeat-last-n", sampler.repeat_last_n, "Tokens that the penalties look back; -1 = all")
      ->check(between(-1, std::numeric_limits<std::int32_t>::max()))
      ->type_name("X")
      ->capture_default_str();
  group
      ->add_option("--frequency-penalty", sampler.frequency_penalty,
                   "Taken from a token's logit for each time it occurred")
      ->check(between(-1e6, 1e6))
      ->type_name("X")
      ->capture_default_str();
  group
      ->add_option("--presence-penalty", sampler.presence_penalty,
                   "Taken from a token's logit if it occurred")
      ->check(between(-1e6, 1e6))
      ->type_name("X")
      ->capture_default_str();
  group->add_option("-s,--seed", seed, "Seed of the draw (default -1: a new one each time)")
      ->check(between(kNewSeed, std::numeric_limits<std::int64_t>::max()))
      ->type_name("N");
}

void SamplerArguments::draw_seed() {
  config.seed = seed == kNewSeed ? std::random_device()() : static_cast<std::uint64_t>(seed);
}

}  // namespace terrace::tools
