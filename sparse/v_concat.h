// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace terrace {

/// What the value convolution of SparseQkv sees besides m, the output of the multiplicative layer.
enum class VConcat : std::uint8_t {
  kNone,      ///< m
  kOriginal,  ///< modules of [m | x], 2*d channels
  kFixed,     ///< [m_0 | x_0 | m_1 | x_1 ...], module by module
};

}  // namespace terrace
