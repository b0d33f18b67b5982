// SPDX-License-Identifier: Apache-2.0
#include "engine/tile_scope.h"

namespace terrace {

constinit thread_local TileState tile_state;

}  // namespace terrace
