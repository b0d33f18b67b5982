// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>

namespace terrace {

/// How a thread's tile registers are configured, if they are.
struct TileState {
  bool kept = false;                     ///< whether a TileScope is open
  std::uint64_t configuration = 0;       ///< the kernel's own key; 0: released
  void (*release)() noexcept = nullptr;  ///< set together with it
};
extern constinit thread_local TileState tile_state;

/// While alive, a kernel that multiplies tiles leaves the tile registers of this thread configured for the
/// next one: configuring and releasing them takes longer than to multiply 16 rows of 576 columns, and a token
/// of a sparse model has hundreds of such products. Between, nothing else on this thread may use tiles, so no
/// scope is open while a program's own code runs, or while a thread waits for long: the kernel saves 8 KB for
/// each switch away from a thread that has tiles.
class TileScope {
 public:
  TileScope() noexcept : outer_(std::exchange(tile_state.kept, true)) {}
  ~TileScope() {
    tile_state.kept = outer_;
    if (!outer_) release();
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

  /// Gives the registers back now; the next kernel configures them again.
  static void release() noexcept {
    if (tile_state.configuration == 0) return;
    tile_state.release();
    tile_state.configuration = 0;
  }

 private:
  bool outer_;
};

}  // namespace terrace
