// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace terrace {

/// a / b, rounded up; a + b must not wrap.
constexpr std::size_t ceil_div(std::size_t a, std::size_t b) noexcept { return (a + b - 1) / b; }

}  // namespace terrace
