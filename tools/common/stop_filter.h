// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace terrace::tools {

/// Lets streamed text through up to the first stop text, which it withholds, as it withholds the end of the
/// text while that may still grow into a stop text.
class StopFilter {
 public:
  /// Empty stop texts are ignored.
  explicit StopFilter(std::vector<std::string> stops);

  /// Appends `text` and returns what is certain now.
  std::string push(std::string_view text);
  /// The text withheld so far, unless a stop text was found.
  std::string finish();
  /// Whether a stop text was found: nothing more comes out.
  bool stopped() const noexcept { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace terrace::tools
