// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/exec.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/tensor.h"

namespace terrace {

/// Divides every row by its length; a row whose length is 0 or not finite becomes zeros.
void normalize_rows(Rows rows) noexcept;

/// Cuts rows of length 1 (or 0) into `n_clusters` clusters of equal size, rows that point the same way
/// together: k-means by the cosine to the clusters' normalised means. In every round rows choose in the order
/// of how far their best cluster exceeds their average one, and a full cluster takes no more. Returns the
/// cluster of each row; depends on the rows and the seed only. Cost per round: rows.n * n_clusters *
/// rows.width multiply-adds. `n_clusters` divides rows.n.
std::vector<std::uint32_t> balanced_clusters(Exec& exec, const DenseKernels& kernels, ConstRows rows,
                                             std::size_t n_clusters, std::uint64_t seed);

}  // namespace terrace
