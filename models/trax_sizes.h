// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace terrace {

// What a sparse convolution of Trax sees, where no configuration says.
inline constexpr std::size_t kModulesSeenByQk = 3;  ///< of q, k and out
inline constexpr std::size_t kModulesSeenByV = 1;
inline constexpr std::size_t kStepsSeen = 3;  ///< of LSH's sparse format and of cross attention

}  // namespace terrace
