// SPDX-License-Identifier: Apache-2.0
#include "attention/rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "engine/error.h"

namespace terrace {

double RotaryScaling::scaled(double frequency) const noexcept {
  switch (kind) {
    case Kind::kNone:
      break;
    case Kind::kLinear:
      return frequency / factor;
    case Kind::kLlama3: {
      const double turns = original_max_len * frequency / (2 * std::numbers::pi);
      const double kept =
          std::clamp((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0.0, 1.0);
      return (1 - kept) * frequency / factor + kept * frequency;
    }
  }
  return frequency;
}

Rotary::Rotary(std::size_t d_head, std::size_t max_positions, double base, bool interleaved,
               const RotaryScaling& scaling)
    : d_head_(d_head), max_positions_(max_positions), interleaved_(interleaved) {
  TERRACE_CHECK(d_head > 0 && d_head % 2 == 0, kBadConfig,
                "rotary positions need an even head width, found " + std::to_string(d_head));
  TERRACE_CHECK(base > 0, kBadConfig,
                "the base of rotary positions must be positive, found " + std::to_string(base));
  for (std::size_t j = 0; j < d_head / 2; ++j)
    frequency_.push_back(
        scaling.scaled(std::pow(base, -2.0 * static_cast<double>(j) / static_cast<double>(d_head))));
  table_ = GrowingTable(max_positions, d_head, "the angles of rotary positions");
}

void Rotary::angles_of(std::size_t position, float* to) const noexcept {
  const std::size_t half = d_head_ / 2;
  for (std::size_t j = 0; j < half; ++j) {
    const double angle = static_cast<double>(position) * frequency_[j];
    to[j] = static_cast<float>(std::cos(angle));
    to[half + j] = static_cast<float>(std::sin(angle));
  }
}

// NOLINTNEXTLINE(readability-non-const-parameter): written by reference
void Rotary::rotate_row(float* x, std::size_t n_heads, const float* of_position) const noexcept {
  const std::size_t half = d_head_ / 2;
  const float* const cosine = of_position;
  const float* const sine = cosine + half;
  const std::size_t first = interleaved_ ? 2 : 1;      // distance of neighbouring pairs
  const std::size_t second = interleaved_ ? 1 : half;  // distance inside a pair
  for (std::size_t h = 0; h < n_heads; ++h, x += d_head_) {
    for (std::size_t j = 0; j < half; ++j) {
      float& a = x[j * first];
      float& b = x[j * first + second];
      const float turned = a * cosine[j] - b * sine[j];
      b = b * cosine[j] + a * sine[j];
      a = turned;
    }
  }
}

void Rotary::apply(const Exec& exec, Rows x, RowPositions positions) const {
  TERRACE_DCHECK(x.width % d_head_ == 0);
  if (x.n == 0) return;
  const Workspace::Scope scope(exec.ws);
  std::size_t n_in_table = x.n;  // positions ascend
  while (n_in_table > 0 && positions[n_in_table - 1] >= max_positions_) --n_in_table;
  const float* table = nullptr;
  if (n_in_table > 0) {
    table =
        table_.first(positions[n_in_table - 1] + 1, [this](float* rows, std::size_t begin, std::size_t end) {
          for (std::size_t p = begin; p < end; ++p) angles_of(p, rows + p * d_head_);
        });
  }
  auto* const beyond = exec.ws.take<float>((x.n - n_in_table) * d_head_);
  exec.for_range(x.n, 1, 2 * x.width, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      float* const own = t < n_in_table ? nullptr : beyond + (t - n_in_table) * d_head_;
      if (own) angles_of(positions[t], own);
      rotate_row(x.row(t), x.width / d_head_, own ? own : table + positions[t] * d_head_);
    }
  });
}

}  // namespace terrace
