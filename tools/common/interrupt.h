// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace terrace::tools {

/// While alive, the first SIGINT or SIGTERM only sets a flag that long work polls; the second one ends the
/// process as usual. The destructor restores the previous handlers.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  /// Whether a signal has come. Cheap enough for every block of work.
  static bool requested() noexcept;

  /// Throws Error{kCancelled} "interrupted" if a signal has come.
  static void check();
};

}  // namespace terrace::tools
