// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/error.h"
#include "engine/quote.h"
#include "models/sampler.h"

namespace terrace {
namespace {

struct StepName {
  SamplerStep step;
  std::string_view name;
};

constexpr std::array<StepName, 5> kSteps{{{SamplerStep::kPenalties, "penalties"},
                                          {SamplerStep::kTopK, "top_k"},
                                          {SamplerStep::kTopP, "top_p"},
                                          {SamplerStep::kMinP, "min_p"},
                                          {SamplerStep::kTemperature, "temperature"}}};

SamplerStep step_named(std::string_view name) {
  const auto found =
      std::find_if(kSteps.begin(), kSteps.end(), [&](const StepName& s) { return s.name == name; });
  TERRACE_CHECK(
      found != kSteps.end(), kBadArgument,
      "sampler: unknown step " + quote_text(name) +
          "; known are penalties, top_k, top_p, min_p, temperature, or the orders llama.cpp and hf");
  return found->step;
}

/// The step with its values; empty if it changes nothing.
std::string describe(const SamplerConfig& c, SamplerStep step) {
  switch (step) {
    case SamplerStep::kPenalties:
      if (c.repeat_penalty == 1 && c.frequency_penalty == 0 && c.presence_penalty == 0) return {};
      return fmt::format("penalties repeat {} frequency {} presence {} last {}", c.repeat_penalty,
                         c.frequency_penalty, c.presence_penalty, c.repeat_last_n);
    case SamplerStep::kTopK:
      return c.top_k > 0 ? fmt::format("top_k {}{}", c.top_k, c.top_k_keeps_ties ? " with ties" : "") : "";
    case SamplerStep::kTopP:
      return c.top_p < 1 ? fmt::format("top_p {}", c.top_p) : "";
    case SamplerStep::kMinP:
      return c.min_p > 0 ? fmt::format("min_p {}", c.min_p) : "";
    case SamplerStep::kTemperature:
      return c.temperature > 0 ? fmt::format("temperature {}", c.temperature) : "greedy";
  }
  return {};
}

}  // namespace

void set_sampler_order(SamplerConfig& config, std::string_view text) {
  if (text == "llama.cpp") {
    const SamplerConfig defaults;
    config.order = defaults.order;
    config.top_k_keeps_ties = defaults.top_k_keeps_ties;
    return;
  }
  if (text == "hf") {
    config.order = {SamplerStep::kPenalties, SamplerStep::kTemperature, SamplerStep::kTopK,
                    SamplerStep::kTopP, SamplerStep::kMinP};
    config.top_k_keeps_ties = true;
    config.repeat_last_n = -1;
    return;
  }
  std::vector<SamplerStep> order;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const SamplerStep step = step_named(text.substr(0, comma));
    TERRACE_CHECK(std::find(order.begin(), order.end(), step) == order.end(), kBadArgument,
                  "sampler: step " + quote_text(text.substr(0, comma)) + " occurs twice in the order");
    order.push_back(step);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  config.order = order;
}

std::string describe_sampler(const SamplerConfig& config) {
  std::string chain;
  for (const SamplerStep step : config.order) {
    const std::string part = describe(config, step);
    if (part.empty()) continue;
    if (!chain.empty()) chain += " > ";
    chain += part;
  }
  return chain.empty() ? "the plain softmax" : chain;
}

}  // namespace terrace
