// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace terrace::tools {

/// Lets streamed text through up to the first stop text, which it keeps back; so does it with an end of the
/// text that may yet grow into one.
class StopFilter {
 public:
  /// Empty stop texts are ignored.
  explicit StopFilter(std::vector<std::string> stops);

  /// The text that is certain after `text` was appended.
  std::string push(std::string_view text);
  /// What was kept back, unless a stop text was found.
  std::string finish();
  /// Whether a stop text was found: nothing more comes out.
  bool stopped() const noexcept { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace terrace::tools
