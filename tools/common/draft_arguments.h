// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "models/sampler.h"
#include "models/session.h"
#include "models/speculation.h"

namespace terrace::tools {

/// --draft, --draft-len.
struct DraftArguments {
  static constexpr std::size_t kAdapt = 0;

  std::string draft;                  ///< as given; empty: none
  std::size_t length = kAdapt;        ///< guesses per pass
  std::vector<std::uint32_t> widths;  ///< of `draft`; empty: lookup

  void add(CLI::App& command);
  /// Throws UsageError where one flag needs another.
  void check() const;
  /// Null without --draft. Throws UsageError for widths that the model does not have.
  std::unique_ptr<Speculation> open(Session& session, const Sampler& sampler) const;
};

}  // namespace terrace::tools
