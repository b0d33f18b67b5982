// SPDX-License-Identifier: Apache-2.0
#include "sparse/unit_sums.h"

#include "engine/paging.h"
#include "engine/prefetch.h"

namespace terrace {

UnitSums::UnitSums(Exec& exec, const DenseKernels& kernels, std::size_t n_units, std::size_t units_per_group,
                   std::size_t n_tokens, std::size_t d)
    : kernels_(kernels),
      n_units_(n_units),
      units_per_group_(units_per_group),
      n_groups_(ceil_div(n_units, units_per_group)),
      // As few and as long as there are threads: every run has to fill its pipeline anew.
      n_runs_(std::min<std::size_t>(n_groups_, exec.team.size())),
      n_tokens_(n_tokens),
      d_(d),
      sums_(exec.ws.take<float>(n_groups_ * n_tokens * d)) {}

void UnitSums::merge(std::size_t group, std::size_t partner, std::size_t begin,
                     std::size_t end) const noexcept {
  for (std::size_t t = 0; t < n_tokens_; ++t) {
    kernels_.add(of(group, t) + begin, of(partner, t) + begin, end - begin);
  }
}

void UnitSums::put(const float* bias, std::size_t begin, std::size_t end, Rows y) const noexcept {
  for (std::size_t t = 0; t < n_tokens_; ++t) {
    float* const out = y.row(t) + begin;
    std::copy_n(of(0, t) + begin, end - begin, out);
    if (bias) kernels_.add(out, bias + begin, end - begin);
  }
}

void UnitSums::finish(Exec& exec, const float* bias, Rows y) const {
  exec.for_range(d_, kQ4Columns, n_runs_ * n_tokens_ * sizeof(float),
                 [&](std::size_t begin, std::size_t end) {
                   for_merges(n_groups_, [&](std::size_t group, std::size_t partner, std::size_t last) {
                     if (!in_one_run(group, last)) merge(group, partner, begin, end);
                   });
                   put(bias, begin, end, y);
                 });
}

void UnitSums::finish_unmerged(const float* bias, std::size_t begin, std::size_t end, Rows y) const noexcept {
  for_merges(n_groups_,
             [&](std::size_t group, std::size_t partner, std::size_t) { merge(group, partner, begin, end); });
  put(bias, begin, end, y);
}

void ask_for_row(const WeightView& w, std::size_t row, bool from_disk) noexcept {
  constexpr std::size_t kMostBytes = 4096;  // the hardware prefetcher follows on from there
  const std::byte* const data = w.row(row);
  if (from_disk) return page_in(data, row_bytes(w.dtype, w.cols));
  prefetch_bytes(data, std::min(row_bytes(w.dtype, w.cols), kMostBytes));
  if (w.scale) prefetch_bytes(w.row_scale(row), 1);
}

}  // namespace terrace
