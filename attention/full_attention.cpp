// SPDX-License-Identifier: Apache-2.0
#include "attention/full_attention.h"

#include <algorithm>

namespace terrace {
namespace {

/// Rows per pass: bounds the scratch memory, whatever the length.
constexpr std::size_t kRowsPerPass = 256;

}  // namespace

void FullAttention::forward(const Exec& exec, const KvCache& kv, ConstRows q, Rows y) const {
  const ProfileZone zone(exec.profile, Zone::kAttention);
  for (std::size_t begin = 0; begin < q.n; begin += kRowsPerPass) {
    const std::size_t n = std::min(kRowsPerPass, q.n - begin);
    if (kv.length() == 0) {
      for (std::size_t t = begin; t < begin + n; ++t) std::fill_n(y.row(t), y.width, 0.0F);
    } else {
      core_.run(exec, kv, VisibleSlots::all(kv.length()), q.slice(begin, n), y.slice(begin, n));
    }
  }
}

std::size_t FullAttention::workspace_bytes(std::size_t max_length, unsigned n_threads) const noexcept {
  return core_.workspace_bytes(kRowsPerPass, max_length, n_threads);
}

}  // namespace terrace
