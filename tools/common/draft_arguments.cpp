// SPDX-License-Identifier: Apache-2.0
#include "tools/common/draft_arguments.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <sstream>

#include "tools/common/checks.h"
#include "tools/common/command.h"

namespace terrace::tools {
namespace {

constexpr const char* kLookup = "lookup";

/// The widths of "N" or "N,N,...".
std::vector<std::uint32_t> parse_widths(const std::string& text) {
  std::vector<std::uint32_t> widths;
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    std::uint32_t width = 0;
    if (!parse_number(part, width) || width == 0) {
      throw CLI::ValidationError(
          "--draft", "expected 'lookup', or a width in feed-forward units (one, or one per block), found '" +
                         text + "'");
    }
    widths.push_back(width);
  }
  return widths;
}

}  // namespace

void DraftArguments::add(CLI::App& command) {
  auto* group = command.add_option_group(
      "speculation", "Guess tokens, check them in one pass: the same text, sooner where guesses are good");
  group
      ->add_option_function<std::string>(
          "--draft",
          [this](const std::string& text) {
            widths = text == kLookup ? std::vector<std::uint32_t>{} : parse_widths(text);
            draft = text;
          },
          "What guesses: the model at a nested width (one number, or one per block), or lookup: what "
          "followed an earlier place in the context that reads alike")
      ->type_name("N[,N...]|lookup");
  group
      ->add_option(
          "--draft-len", length,
          fmt::format("Tokens to guess per pass (default: as many as pay, up to {}, by what is measured "
                      "meanwhile)",
                      Speculation::Options{}.most_guesses))
      ->check(between<std::size_t>(1, Session::kMostVerified - 1))
      ->type_name("N");
}

void DraftArguments::check() const {
  if (length != kAdapt && draft.empty())
    throw UsageError("--draft-len: needs --draft, which says what guesses");
}

std::unique_ptr<Speculation> DraftArguments::open(Session& session, const Sampler& sampler) const {
  if (draft.empty()) return nullptr;
  std::unique_ptr<Draft> source;
  if (widths.empty()) {
    source = std::make_unique<LookupDraft>();
  } else {
    source = blame("--draft", [&] { return std::make_unique<NestedDraft>(session, widths, sampler); });
  }
  Speculation::Options options;
  options.adapt = length == kAdapt;
  if (!options.adapt) options.most_guesses = length;
  return std::make_unique<Speculation>(session, sampler, std::move(source), options);
}

}  // namespace terrace::tools
