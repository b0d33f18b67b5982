// SPDX-License-Identifier: Apache-2.0
#include "attention/favor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/error.h"

namespace terrace {
namespace {

constexpr float kStabilizer = 1e-3F;  // of relu features
constexpr float kEpsilon = 1e-4F;     // of softmax features
/// Rows between two ticks of a whole sequence.
constexpr std::size_t kRowsPerPass = 1024;

/// Memory for one row of one head.
struct RowScratch {
  float* query;  // features [m]
  float* key;    // features [m]
  float* value;  // [padded d]
  float* sum;    // [padded d]

  static std::size_t floats(std::size_t m, std::size_t d) noexcept {
    return 2 * padded_width(m) + 2 * padded_width(d);
  }
  RowScratch(float* memory, std::size_t m, std::size_t d) noexcept
      : query(memory),
        key(query + padded_width(m)),
        value(key + padded_width(m)),
        sum(value + padded_width(d)) {
    std::fill_n(value, padded_width(d), 0.0F);
  }
};

void relu_features(const float* x, std::size_t n, float* features) noexcept {
  for (std::size_t i = 0; i < n; ++i) features[i] = (x[i] <= 0 ? 0.0F : x[i]) + kStabilizer;
}

}  // namespace

FavorAttention::FavorAttention(const AttentionKernels& kernels, std::size_t n_heads, std::size_t d_head,
                               const float* features, std::size_t n_features)
    : kernels_(&kernels), n_heads_(n_heads), d_head_(d_head) {
  TERRACE_CHECK(n_heads > 0 && d_head > 0, kBadConfig,
                "favor attention needs at least one head and one channel");
  TERRACE_CHECK((features != nullptr) == (n_features > 0), kBadConfig,
                "favor attention: softmax features need a matrix with at least one row");
  for (std::size_t i = 0; i < n_features; ++i) feature_rows_.push_back(features + i * d_head);
}

std::size_t FavorAttention::head_state_floats(std::size_t d_head, std::size_t n_features) noexcept {
  return n_features * padded_width(d_head) + padded_width(n_features);
}

void FavorAttention::add_key(const float* features, const float* value, float* sums) const noexcept {
  const std::size_t m = width();
  kernels_->linear_attention(features, value, nullptr, m, padded_width(d_head_), sums, nullptr);
  float* const normalizer = sums + m * padded_width(d_head_);
  for (std::size_t i = 0; i < m; ++i) normalizer[i] += features[i];
}

void FavorAttention::answer(const float* features, const float* sums, float* scratch,
                            float* y) const noexcept {
  const std::size_t m = width();
  const std::size_t d = padded_width(d_head_);
  // Reading only: the kernel's interface takes the sums it may also update.
  kernels_->linear_attention(nullptr, nullptr, features, m, d, const_cast<float*>(sums), scratch);
  const float* const normalizer = sums + m * d;
  float total = 0;
  kernels_->dot_rows(features, &normalizer, 1, m, 1.0F, &total);
  for (std::size_t c = 0; c < d_head_; ++c) y[c] = scratch[c] / total;
}

void FavorAttention::causal(const Exec& exec, const RecurrentSlot& state, ConstRows q, ConstRows k,
                            ConstRows v, Rows y) const {
  const ProfileZone zone(exec.profile, Zone::kAttention);
  TERRACE_CHECK(feature_rows_.empty(), kUnsupported,
                "favor attention with softmax features has no causal form: the features depend on all keys");
  const Workspace::Scope scope(exec.ws);
  const std::size_t m = width();
  const std::size_t per_head = RowScratch::floats(m, d_head_);
  auto* const memory = exec.ws.take<float>(n_heads_ * per_head);
  exec.for_range(n_heads_, 1, q.n * m * d_head_ * 2, [&](std::size_t begin, std::size_t end) {
    for (std::size_t h = begin; h < end; ++h) {
      const RowScratch row(memory + h * per_head, m, d_head_);
      const RecurrentSlot of_head = state.part(h * head_state_floats(), head_state_floats());
      float* const sums = of_head.now().data();
      float* const normalizer = sums + m * padded_width(d_head_);
      for (std::size_t t = 0; t < q.n; ++t) {
        relu_features(q.row(t) + h * d_head_, m, row.query);
        relu_features(k.row(t) + h * d_head_, m, row.key);
        std::memcpy(row.value, v.row(t) + h * d_head_, d_head_ * sizeof(float));
        for (std::size_t i = 0; i < m; ++i) normalizer[i] += row.key[i];
        kernels_->linear_attention(row.key, row.value, row.query, m, padded_width(d_head_), sums, row.sum);
        float total = 0;
        kernels_->dot_rows(row.query, &normalizer, 1, m, 1.0F, &total);
        float* const out = y.row(t) + h * d_head_;
        for (std::size_t c = 0; c < d_head_; ++c) out[c] = row.sum[c] / total;
        if (t + 1 < q.n) of_head.leave(t);
      }
    }
  });
}

/// softmax features: exponents a - b of the largest at `top`.
void FavorAttention::softmax_features(const float* x, float top, float* features) const noexcept {
  const std::size_t m = width();
  float squares = 0;
  kernels_->dot_rows(x, &x, 1, d_head_, 0.5F, &squares);
  for (std::size_t i = 0; i < m; ++i) features[i] -= squares + top;
  kernels_->exp(features, m, features);
  const float ratio = 1.0F / std::sqrt(static_cast<float>(m));
  for (std::size_t i = 0; i < m; ++i) features[i] = ratio * (features[i] + kEpsilon);
}

void FavorAttention::full(const Exec& exec, ConstRows q, ConstRows k, ConstRows v, std::size_t n_real, Rows y,
                          const RowTick& tick) const {
  TERRACE_DCHECK(n_real <= k.n);
  if (n_real == 0) {
    for (std::size_t t = 0; t < q.n; ++t) std::fill_n(y.row(t), y.width, 0.0F);
    return;
  }
  const Workspace::Scope scope(exec.ws);
  const std::size_t m = width();
  const std::size_t per_head = RowScratch::floats(m, d_head_);
  auto* const memory = exec.ws.take<float>(n_heads_ * per_head);
  auto* const sums = exec.ws.take<float>(state_floats());
  std::fill_n(sums, state_floats(), 0.0F);
  auto* const tops = exec.ws.take<float>(n_heads_);
  std::fill_n(tops, n_heads_, -std::numeric_limits<float>::infinity());

  // fn(h, t, scratch) for all heads and the rows [0, n), in order within a head.
  const auto for_rows = [&](std::size_t n, bool counts, const auto& fn) {
    for (std::size_t first = 0; first < n; first += kRowsPerPass) {
      const std::size_t last = std::min(n, first + kRowsPerPass);
      exec.for_range(n_heads_, 1, (last - first) * m * d_head_, [&](std::size_t begin, std::size_t end) {
        for (std::size_t h = begin; h < end; ++h) {
          const RowScratch row(memory + h * per_head, m, d_head_);
          for (std::size_t t = first; t < last; ++t) fn(h, t, row);
        }
      });
      if (tick) tick(counts ? last - first : 0);
    }
  };
  const auto project = [&](const float* x, float* a) {
    kernels_->dot_rows(x, feature_rows_.data(), m, d_head_, 1.0F, a);
    return *std::max_element(a, a + m);
  };
  const auto features_of = [&](const float* x, const float* top, float* features) {
    if (feature_rows_.empty()) return relu_features(x, m, features);
    const float own_top = project(x, features);
    softmax_features(x, top ? *top : own_top, features);
  };

  if (!feature_rows_.empty()) {
    for_rows(n_real, false, [&](std::size_t h, std::size_t t, const RowScratch& row) {
      tops[h] = std::max(tops[h], project(k.row(t) + h * d_head_, row.key));
    });
  }
  for_rows(n_real, false, [&](std::size_t h, std::size_t t, const RowScratch& row) {
    features_of(k.row(t) + h * d_head_, tops + h, row.key);
    std::memcpy(row.value, v.row(t) + h * d_head_, d_head_ * sizeof(float));
    add_key(row.key, row.value, sums + h * head_state_floats());
  });
  for_rows(q.n, true, [&](std::size_t h, std::size_t t, const RowScratch& row) {
    features_of(q.row(t) + h * d_head_, nullptr, row.query);
    answer(row.query, sums + h * head_state_floats(), row.sum, y.row(t) + h * d_head_);
  });
}

std::size_t FavorAttention::workspace_bytes() const noexcept {
  return (n_heads_ * (RowScratch::floats(width(), d_head_) + 1) + state_floats()) * sizeof(float) +
         3 * kCacheLine;
}

}  // namespace terrace
