// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/ceil_div.h"
#include "engine/exec.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/tensor.h"

namespace terrace {

/// Calls fn(group, partner, end) for every sum of the tree over n groups, leaves first: that of `partner` is
/// added to that of `group`, which then holds the groups up to `end`.
template <class F>
void for_merges(std::size_t n, F&& fn) {
  for (std::size_t distance = 1; distance < n; distance *= 2) {
    for (std::size_t group = 0; group + distance < n; group += 2 * distance) {
      fn(group, group + distance, std::min(group + 2 * distance, n));
    }
  }
}

/// Sums over the units that each token of a pass uses, `n_units` of them: units are added up in order within
/// a group, groups in a tree (0 + 1, 2 + 3, ...; pairs of those; and so on; one that has no partner goes up
/// as it is). Threads take runs of neighbouring groups. Memory: a row of d floats for each group and token.
class UnitSums {
 public:
  /// Units per group, out of `n` in all. A group has an accumulator for each token, which travels to another
  /// core at the end: so at least eight units per group and at most eight groups.
  static constexpr std::size_t group_of(std::size_t n) noexcept {
    constexpr std::size_t kLeast = 8, kWantedGroups = 8;
    return std::max(kLeast, ceil_div(n, kWantedGroups));
  }

  /// Takes the sums from the workspace, uninitialised.
  UnitSums(Exec& exec, const DenseKernels& kernels, std::size_t n_units, std::size_t units_per_group,
           std::size_t n_tokens, std::size_t d);

  std::size_t n_groups() const noexcept { return n_groups_; }
  std::size_t units_per_group() const noexcept { return units_per_group_; }
  /// First unit of a group and the one after its last.
  std::size_t first(std::size_t group) const noexcept { return group * units_per_group_; }
  std::size_t last(std::size_t group) const noexcept {
    return std::min((group + 1) * units_per_group_, n_units_);
  }
  float* of(std::size_t group, std::size_t token) const noexcept {
    return sums_ + (group * n_tokens_ + token) * d_;
  }

  /// Some units of one group.
  struct Step {
    std::size_t group;
    std::size_t first;
    std::size_t last;
    std::size_t run;  ///< the thread's
    std::size_t size() const noexcept { return last - first; }
  };
  /// A phase: ask(step), activate(step), add_up(step) for all units, at most `units_per_step` at a time. A
  /// thread takes its groups through these stages as a pipeline, each kLag steps behind the one before: what
  /// a stage prefetches has that many steps to arrive. At the end the thread merges its own sums.
  template <class Ask, class Activate, class AddUp>
  void run(Exec& exec, std::size_t units_per_step, Ask ask, Activate activate, AddUp add_up) const {
    constexpr std::size_t kLag = 2;
    const std::size_t steps_per_group = ceil_div(units_per_group_, units_per_step);
    exec.team.run(static_cast<std::uint32_t>(n_runs_), [&](std::uint32_t run) {
      const std::size_t begin = run_begin(run), end = run_begin(run + 1);
      const std::size_t n_steps = (end - begin) * steps_per_group;
      const auto at = [&](std::size_t i) {
        const std::size_t group = begin + i / steps_per_group;
        const std::size_t from = std::min(last(group), first(group) + i % steps_per_group * units_per_step);
        return Step{group, from, std::min(last(group), from + units_per_step), run};
      };
      for (std::size_t i = 0; i < n_steps + 2 * kLag; ++i) {
        if (i < n_steps) ask(at(i));
        if (i >= kLag && i - kLag < n_steps) activate(at(i - kLag));
        if (i >= 2 * kLag) add_up(at(i - 2 * kLag));
      }
      for_merges(n_groups_, [&](std::size_t group, std::size_t partner, std::size_t last_group) {
        if (group >= begin && last_group <= end) merge(group, partner, 0, d_);
      });
    });
  }
  std::size_t n_runs() const noexcept { return n_runs_; }

  /// y = what run() left, merged, + bias (may be null); one phase.
  void finish(Exec& exec, const float* bias, Rows y) const;
  /// The same for columns [begin, end) of sums none of which is merged yet, on the calling thread.
  void finish_unmerged(const float* bias, std::size_t begin, std::size_t end, Rows y) const noexcept;

 private:
  std::size_t run_begin(std::size_t run) const noexcept { return n_groups_ * run / n_runs_; }
  /// Whether one run has all groups of [begin, end): it merges them itself.
  bool in_one_run(std::size_t begin, std::size_t end) const noexcept {
    const std::size_t run = ((begin + 1) * n_runs_ - 1) / n_groups_;
    return end <= run_begin(run + 1);
  }
  /// Columns [begin, end) of one sum of the tree.
  void merge(std::size_t group, std::size_t partner, std::size_t begin, std::size_t end) const noexcept;
  void put(const float* bias, std::size_t begin, std::size_t end, Rows y) const noexcept;

  const DenseKernels& kernels_;
  std::size_t n_units_;
  std::size_t units_per_group_;
  std::size_t n_groups_;
  std::size_t n_runs_;
  std::size_t n_tokens_;
  std::size_t d_;
  float* sums_;
};

/// Prefetches a unit's row into the L2 cache: a step's rows are more lines than the first-level cache can
/// wait for at once, and the excess holds up other loads (Zen 4: 45 ns per row of 1 KiB against 100).
/// `from_disk`: the row lies in a mapped file larger than memory.
void ask_for_row(const WeightView& w, std::size_t row, bool from_disk) noexcept;

}  // namespace terrace
