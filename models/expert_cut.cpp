// SPDX-License-Identifier: Apache-2.0
#include "models/expert_cut.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "engine/largest.h"
#include "models/balanced_clusters.h"
#include "models/ridge_regression.h"

namespace terrace {
namespace {

/// Tokens whose activations say which units belong together: enough for units that are rarely active.
constexpr std::size_t kClusterTokens = 4096;
/// Rows that go through the layer in one call.
constexpr std::size_t kRowsPerCall = 256;
constexpr double kRidge = 1e-3;
/// One part in so many of the text is kept back, to measure on.
constexpr std::size_t kMeasuredPart = 8;

std::vector<std::uint32_t> by_expert(const std::vector<std::uint32_t>& cluster) {
  std::vector<std::uint32_t> units(cluster.size());
  std::iota(units.begin(), units.end(), 0U);
  std::stable_sort(units.begin(), units.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return cluster[a] < cluster[b]; });
  return units;
}

/// Calls fn(first row, their activations) for all rows of x in turn, the team open.
template <class F>
void for_activations(Exec& exec, const DenseBlock& block, ConstRows x, F&& fn) {
  std::vector<float> buffer(kRowsPerCall * block.d_ff());
  for (std::size_t begin = 0; begin < x.n; begin += kRowsPerCall) {
    const std::size_t n = std::min(kRowsPerCall, x.n - begin);
    const Rows a{buffer.data(), n, block.d_ff(), block.d_ff()};
    const ThreadTeam::Region region(exec.team);
    block.activate(exec, x.slice(begin, n), a);
    fn(begin, a);
  }
}

/// The first tokens' activations of each unit, [d_ff, tokens].
std::vector<float> activation_patterns(Exec& exec, const DenseBlock& block, ConstRows x) {
  std::vector<float> patterns(block.d_ff() * x.n);
  for_activations(exec, block, x, [&](std::size_t begin, Rows a) {
    for (std::size_t t = 0; t < a.n; ++t) {
      for (std::size_t u = 0; u < block.d_ff(); ++u) {
        patterns[u * x.n + begin + t] = std::abs(a.row(t)[u]);  // of a gated unit either sign
      }
    }
  });
  return patterns;
}

class Cutter {
 public:
  Cutter(Exec& exec, const DenseKernels& kernels, const DenseBlock& block, const MoefyOptions& options,
         ExpertCut& cut)
      : exec_(exec),
        kernels_(kernels),
        block_(block),
        n_experts_(options.n_experts),
        n_units_(block.d_ff() / n_experts_),
        n_active_(options.n_active),
        cut_(cut),
        expert_of_(block.d_ff()) {
    for (std::size_t i = 0; i < cut.units.size(); ++i) {
      expert_of_[cut.units[i]] = static_cast<std::uint32_t>(i / n_units_);
    }
  }

  /// Fits router and offsets to x.
  void fit(ConstRows x, const std::function<void(std::size_t)>& done) {
    std::vector<float> sizes(n_experts_ * x.n), columns(block_.d_model() * x.n);
    for_activations(exec_, block_, x, [&](std::size_t begin, Rows a) {
      std::vector<float> own(n_experts_);
      for (std::size_t t = 0; t < a.n; ++t) {
        expert_sizes(a.row(t), own);
        for (std::size_t e = 0; e < n_experts_; ++e) sizes[e * x.n + begin + t] = own[e];
        for (std::size_t i = 0; i < block_.d_model(); ++i) columns[i * x.n + begin + t] = x.row(begin + t)[i];
      }
      done(a.n);
    });
    LinearFit fit = fit_linear(exec_, kernels_, {columns.data(), block_.d_model(), x.n, x.n},
                               {sizes.data(), n_experts_, x.n, x.n}, kRidge);
    cut_.router = std::move(fit.weight);
    cut_.router_bias = std::move(fit.bias);
    fit_offsets(x, done);
  }

  /// What the choices of the router cost on x.
  void measure(ConstRows x, const std::function<void(std::size_t)>& done) {
    double active = 0, mass = 0, kept = 0, kept_best = 0;
    std::vector<float> sizes(n_experts_);
    std::vector<float> routed, best;
    double squares = 0, errors = 0, errors_best = 0;
    for_activations(exec_, block_, x, [&](std::size_t begin, Rows a) {
      const std::vector<float> scores = route(x.slice(begin, a.n));
      const auto copy_of = [&](std::vector<float>& to) {
        to.assign(a.data, a.data + a.n * a.width);
        return Rows{to.data(), a.n, a.width, a.width};
      };
      // What the layer leaves out: the units of the other experts, but for what these add on average.
      const Rows not_routed = copy_of(routed), not_best = copy_of(best);
      const std::size_t d = block_.d_model();
      std::vector<float> means_routed(a.n * d), means_best(a.n * d);
      for (std::size_t t = 0; t < a.n; ++t) {
        choose(scores.data() + t * n_experts_);
        kept += leave_out_chosen(not_routed.row(t));
        add_offsets_of_others(means_routed.data() + t * d);
        expert_sizes(a.row(t), sizes);
        choose(sizes.data());
        kept_best += leave_out_chosen(not_best.row(t));
        add_offsets_of_others(means_best.data() + t * d);
        for (std::size_t u = 0; u < a.width; ++u) {
          active += a.row(t)[u] != 0;
          mass += std::abs(a.row(t)[u]) * block_.w2_length()[u];
        }
      }
      squares += sum_of_squares(a, nullptr);
      errors += sum_of_squares(not_routed, means_routed.data());
      errors_best += sum_of_squares(not_best, means_best.data());
      done(2 * a.n);
    });
    const auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0; };
    cut_.lost = {.n_tokens = x.n,
                 .active_units = active / static_cast<double>(x.n * block_.d_ff()),
                 .kept = share(kept, mass),
                 .kept_best = share(kept_best, mass),
                 .error = std::sqrt(share(errors, squares)),
                 .error_best = std::sqrt(share(errors_best, squares))};
  }

 private:
  /// Minus the mean of what each expert adds where the router does not choose it, and the sum of these means.
  void fit_offsets(ConstRows x, const std::function<void(std::size_t)>& done) {
    std::vector<double> sum(block_.d_ff());  // of activations where they are left out
    std::vector<std::size_t> count(n_experts_);
    for_activations(exec_, block_, x, [&](std::size_t begin, Rows a) {
      const std::vector<float> scores = route(x.slice(begin, a.n));
      for (std::size_t t = 0; t < a.n; ++t) {
        choose(scores.data() + t * n_experts_);
        for (std::size_t e = 0; e < n_experts_; ++e) count[e] += chosen_[e] ? 0 : 1;
        for (std::size_t u = 0; u < block_.d_ff(); ++u) {
          if (!chosen_[expert_of_[u]]) sum[u] += a.row(t)[u];
        }
      }
      done(a.n);
    });
    for (std::size_t u = 0; u < block_.d_ff(); ++u) {
      const std::uint32_t e = expert_of_[u];
      if (count[e] == 0) continue;
      const auto mean = static_cast<float>(sum[u] / static_cast<double>(count[e]));
      for (std::size_t i = 0; i < block_.d_model(); ++i) {
        cut_.offsets[e * block_.d_model() + i] -= mean * block_.w2().row(u)[i];
      }
    }
    for (std::size_t e = 0; e < n_experts_; ++e) {
      for (std::size_t i = 0; i < block_.d_model(); ++i) cut_.bias[i] -= offset(e)[i];
    }
  }

  /// Marks the experts that are largest by `sizes`.
  void choose(const float* sizes) noexcept {
    std::fill(chosen_.begin(), chosen_.end(), 0);
    take_largest(sizes, n_experts_, n_active_, scratch_.data(), largest_.data());
    for (const std::uint32_t e : largest_) chosen_[e] = 1;
  }

  const float* offset(std::size_t expert) const noexcept {
    return cut_.offsets.data() + expert * block_.d_model();
  }
  void add_offsets_of_others(float* y) const noexcept {
    for (std::size_t e = 0; e < n_experts_; ++e) {
      if (!chosen_[e]) kernels_.add(y, offset(e), block_.d_model());
    }
  }

  /// sqrt(sum (a |w2|)^2) over the units of each expert.
  void expert_sizes(const float* a, std::vector<float>& sizes) const {
    std::fill(sizes.begin(), sizes.end(), 0.0F);
    for (std::size_t u = 0; u < block_.d_ff(); ++u) {
      const float part = a[u] * block_.w2_length()[u];
      sizes[expert_of_[u]] += part * part;
    }
    for (float& size : sizes) size = std::sqrt(size);
  }

  /// Router scores, [x.n, E]; the team is open.
  std::vector<float> route(ConstRows x) const {
    std::vector<float> scores(x.n * n_experts_);
    const std::size_t d = block_.d_model();
    const Linear router(kernels_, {cut_.router.data(), nullptr, n_experts_, d, d, DType::kF32},
                        cut_.router_bias.data());
    router.forward(exec_, x, {scores.data(), x.n, n_experts_, n_experts_});
    return scores;
  }

  /// Sets the activations of chosen experts to 0; returns what they had of sum |a| |w2|.
  double leave_out_chosen(float* a) const noexcept {
    double kept = 0;
    for (std::size_t u = 0; u < block_.d_ff(); ++u) {
      if (!chosen_[expert_of_[u]]) continue;
      kept += std::abs(a[u]) * block_.w2_length()[u];
      a[u] = 0;
    }
    return kept;
  }

  /// Sum of (w2 a + more)^2.
  double sum_of_squares(ConstRows a, const float* more) const {
    std::vector<float> y(a.n * block_.d_model());
    block_.add_up(exec_, a, {y.data(), a.n, block_.d_model(), block_.d_model()});
    if (more) kernels_.add(y.data(), more, y.size());
    return std::inner_product(y.begin(), y.end(), y.begin(), 0.0);
  }

  Exec& exec_;
  const DenseKernels& kernels_;
  const DenseBlock& block_;
  std::size_t n_experts_;
  std::size_t n_units_;
  std::size_t n_active_;
  ExpertCut& cut_;
  std::vector<std::uint32_t> expert_of_;
  std::vector<std::uint32_t> scratch_ = std::vector<std::uint32_t>(n_experts_);
  std::vector<std::uint32_t> largest_ = std::vector<std::uint32_t>(n_active_);
  std::vector<char> chosen_ = std::vector<char>(n_experts_);
};

ExpertCut cut_by(Exec& exec, const DenseKernels& kernels, const DenseBlock& block, Rows patterns,
                 const MoefyOptions& options) {
  normalize_rows(patterns);
  ExpertCut cut;
  cut.units = by_expert(balanced_clusters(exec, kernels, patterns, options.n_experts, options.seed));
  cut.router_bias.resize(options.n_experts);
  cut.offsets.resize(options.n_experts * block.d_model());
  cut.bias.resize(block.d_model());
  return cut;
}

}  // namespace

ExpertCut cut_by_weights(Exec& exec, const DenseKernels& kernels, const DenseBlock& block,
                         const MoefyOptions& options) {
  // Of a gated unit the gate decides whether it is active.
  const ConstRows deciding = block.gated() ? block.gate() : block.w1();
  const std::size_t d = block.d_model();
  std::vector<float> directions(deciding.data, deciding.data + block.d_ff() * d);
  ExpertCut cut = cut_by(exec, kernels, block, {directions.data(), block.d_ff(), d, d}, options);
  const std::size_t n_units = block.d_ff() / options.n_experts;
  cut.router.resize(options.n_experts * d);
  for (std::size_t i = 0; i < block.d_ff(); ++i) {
    kernels.add(cut.router.data() + i / n_units * d, directions.data() + cut.units[i] * d, d);
  }
  normalize_rows({cut.router.data(), options.n_experts, d, d});
  return cut;
}

ExpertCut cut_by_activations(Exec& exec, const DenseKernels& kernels, const DenseBlock& block, ConstRows x,
                             const MoefyOptions& options, const std::function<void(std::size_t)>& done) {
  const std::size_t n_fitted = x.n - x.n / kMeasuredPart;
  const ConstRows first = x.slice(0, std::min(kClusterTokens, n_fitted));
  std::vector<float> patterns = activation_patterns(exec, block, first);
  ExpertCut cut = cut_by(exec, kernels, block, {patterns.data(), block.d_ff(), first.n, first.n}, options);
  Cutter cutter(exec, kernels, block, options, cut);
  cutter.fit(x.slice(0, n_fitted), done);
  cutter.measure(x.slice(n_fitted, x.n - n_fitted), done);
  return cut;
}

}  // namespace terrace
