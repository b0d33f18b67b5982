// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>

#include "engine/exec.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/tensor.h"

namespace terrace {

/// `n` rows of `width` floats from the workspace.
inline Rows take_rows(Exec& exec, std::size_t n, std::size_t width) {
  return {exec.ws.take<float>(n * width), n, width, width};
}

/// sum += y, row by row: a residual addition.
inline void add_rows(const DenseKernels& kernels, const Exec& exec, ConstRows y, Rows sum) noexcept {
  exec.for_range(y.n, 1, 4 * y.width, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) kernels.add(sum.row(t), y.row(t), y.width);
  });
}

inline void copy_rows(ConstRows from, Rows to) noexcept {
  for (std::size_t t = 0; t < from.n; ++t) std::memcpy(to.row(t), from.row(t), from.width * sizeof(float));
}

}  // namespace terrace
