// SPDX-License-Identifier: Apache-2.0
#include "attention/position.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/threefry.h"

namespace terrace {
namespace {

void add_row(const float* from, std::size_t n, float* to) noexcept {
  for (std::size_t i = 0; i < n; ++i) to[i] += from[i];
}

/// Calls fn(row, position) for every row of x, sharing rows between threads.
template <class F>
void for_rows(const Exec& exec, Rows x, std::size_t first, std::size_t work_per_row, F&& fn) noexcept {
  exec.for_range(x.n, 1, work_per_row, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) fn(x.row(t), first + t);
  });
}

/// Bytes that reading a table row and adding it to an activation row touches.
std::size_t row_work(std::size_t d) noexcept { return 2 * d * sizeof(float); }

/// Multiply-adds that a sine or cosine in double is worth.
constexpr std::size_t kSineWork = 40;

}  // namespace

void LearnedPosition::add(const Exec& exec, Rows x, std::size_t first) const noexcept {
  for_rows(exec, x, first, row_work(d_), [this](float* row, std::size_t position) {
    add_row(table_ + std::min(position, max_len_ - 1) * d_, d_, row);
  });
}

void LowRankPosition::add(Exec& exec, Rows x, std::size_t first) const {
  const Workspace::Scope scope(exec.ws);
  const std::size_t rank = proj_.d_in();
  const std::size_t d = proj_.d_out();
  Rows codes{exec.ws.take<float>(x.n * rank), x.n, rank, rank};
  for (std::size_t t = 0; t < x.n; ++t) {
    std::copy_n(table_ + std::min(first + t, max_len_ - 1) * rank, rank, codes.row(t));
  }
  Rows encoding{exec.ws.take<float>(x.n * d), x.n, d, d};
  proj_.forward(exec, codes, encoding);
  for_rows(exec, x, 0, row_work(d), [&](float* row, std::size_t t) { add_row(encoding.row(t), d, row); });
}

SinCosPosition::SinCosPosition(std::size_t d) : frequency_(d / 2) {
  for (std::size_t j = 0; j < frequency_.size(); ++j) {
    frequency_[j] = std::exp(-2.0 * static_cast<double>(j) * std::log(10000.0) / static_cast<double>(d));
  }
}

void SinCosPosition::add(const Exec& exec, Rows x, std::size_t first) const noexcept {
  const std::size_t half = frequency_.size();
  for_rows(exec, x, first, 2 * half * kSineWork, [&](float* row, std::size_t position) {
    for (std::size_t j = 0; j < half; ++j) {
      const double angle = static_cast<double>(position) * frequency_[j];
      row[j] += static_cast<float>(std::sin(angle));
      row[half + j] += static_cast<float>(std::cos(angle));
    }
  });
}

void FixedBasePosition::add(const Exec& exec, Rows x, std::size_t first) const noexcept {
  const std::size_t width = d_ / kDigits;
  for_rows(exec, x, first, kBases.size() * d_, [&](float* row, std::size_t position) {
    const float* weights = digits_;
    for (const std::size_t base : kBases) {
      std::size_t rest = position;
      for (std::size_t i = 0; i < kDigits; ++i, weights += width, rest /= base) {
        const auto digit = static_cast<float>(rest % base);
        for (std::size_t c = 0; c < width; ++c) row[i * width + c] += digit * weights[c];
      }
    }
    if (position == 0) add_row(start_, d_, row);
  });
}

AxialPosition::AxialPosition(std::vector<Axis> axes) : axes_(std::move(axes)) {
  for (const Axis& axis : axes_) n_positions_ *= axis.size;
}

void AxialPosition::add(const Exec& exec, Rows x, std::size_t first) const noexcept {
  for_rows(exec, x, first, row_work(x.width), [&](float* row, std::size_t position) {
    std::size_t rest = std::min(position, n_positions_ - 1);
    std::size_t below = n_positions_;  // positions that one step along the axis passes
    for (const Axis& axis : axes_) {
      below /= axis.size;
      add_row(axis.table + rest / below * axis.width, axis.width, row);
      row += axis.width;
      rest %= below;
    }
  });
}

InfinitePosition::InfinitePosition(const Linear& map, std::size_t max_positions, double drift)
    : map_(map),
      max_positions_(max_positions),
      half_((map.d_in() + 1) / 2),
      frequency_(half_),
      root_of_drift_(static_cast<float>(std::sqrt(drift))),
      walk_(max_positions, half_, "the phases of infinite positions") {
  const std::size_t d = map_.d_in();
  // Half a wave at the end of an odd d counts in half_, but not here: the exponent is Trax's.
  const std::size_t n_whole_waves = d / 2;
  if (d > 2) drift = std::pow(drift, static_cast<double>(half_) / static_cast<double>(n_whole_waves));
  for (std::size_t j = 0; j < half_; ++j) {
    const double along = half_ == 1 ? 0.0 : static_cast<double>(j) / static_cast<double>(half_ - 1);
    frequency_[j] = 0.5 * std::pow(drift, 2.0 * along);
  }
}

void InfinitePosition::fill(float* walk, std::size_t begin, std::size_t end) const noexcept {
  // The constants and the f32 arithmetic are Trax's: steps of word / (2^31 - 1) * sqrt(3), and sqrt(drift)
  // after adding up.
  constexpr std::uint64_t kSeed = 234234535;
  const ThreefryKey key = threefry_split(threefry_key(kSeed), 2, 0);
  for (std::size_t p = begin; p < end; ++p) {
    for (std::size_t j = 0; j < half_; ++j) {
      const auto word = threefry_block(key, static_cast<std::uint32_t>(p * half_ + j), 0)[0];
      const float before = p == 0 ? 0.0F : walk[(p - 1) * half_ + j];
      walk[p * half_ + j] =
          before + static_cast<float>(word) / 2147483647.0F * static_cast<float>(std::numbers::sqrt3);
    }
  }
}

void InfinitePosition::add(Exec& exec, Rows x, std::size_t first) const {
  const Workspace::Scope scope(exec.ws);
  const std::size_t d = map_.d_in();
  Rows waves{exec.ws.take<float>(x.n * d), x.n, d, d};
  const float* const walk =
      walk_.first(std::min(first + x.n, max_positions_),
                  [this](float* rows, std::size_t begin, std::size_t end) { fill(rows, begin, end); });
  for_rows(exec, waves, first, d * kSineWork, [&](float* row, std::size_t position) {
    const float* const steps = walk + std::min(position, max_positions_ - 1) * half_;
    for (std::size_t c = 0; c < d; ++c) {
      const double cycles = static_cast<double>(c % 2) / 4 +
                            frequency_[c / 2] * static_cast<double>(position) +
                            static_cast<double>(steps[c / 2] * root_of_drift_) / 4;
      row[c] = static_cast<float>(std::cos(2 * std::numbers::pi * cycles));
    }
  });
  Rows encoding{exec.ws.take<float>(x.n * map_.d_out()), x.n, map_.d_out(), map_.d_out()};
  map_.forward(exec, waves, encoding);
  for_rows(exec, x, 0, row_work(x.width),
           [&](float* row, std::size_t t) { add_row(encoding.row(t), x.width, row); });
}

void TimeBinPosition::add(const Exec& exec, Rows x, std::size_t first) const noexcept {
  for_rows(exec, x, first, 64, [&](float* row, std::size_t position) {
    const std::size_t bin = position / bin_length_;
    float* last = row + x.width - 3;
    last[0] = 1.0F / static_cast<float>(1 + bin);
    last[1] = static_cast<float>(position % bin_length_) / static_cast<float>(bin_length_);
    last[2] = static_cast<float>(bin % 2);
  });
}

void PositionEncoding::add(Exec& exec, Rows x, std::size_t first) const {
  std::visit(
      [&](const auto& kind) {
        if constexpr (!std::is_same_v<std::decay_t<decltype(kind)>, std::monostate>) kind.add(exec, x, first);
      },
      kind_);
}

}  // namespace terrace
