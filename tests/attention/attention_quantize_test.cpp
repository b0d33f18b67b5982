// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <vector>

#include "attention/kernels/attention_kernels.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST_CASE("quantize_query: nearest of 16319 steps, the same bytes on every instruction set") {
  for (const Isa isa : available_isas()) {
    for (const std::size_t d : {1UL, 15UL, 16UL, 33UL, 130UL}) {
      for (const float scale : {0.0F, 1.0F, 1e-30F, 3e8F}) {
        auto q = random_floats(d, d, scale);
        q.back() = scale;
        std::vector<std::int8_t> bytes(2 * padded_width(d)), scalar(bytes.size());
        QuantizedQuery found{bytes.data(), bytes.data() + padded_width(d), 0, 0, 0, nullptr, nullptr};
        QuantizedQuery expected{scalar.data(), scalar.data() + padded_width(d), 0, 0, 0, nullptr, nullptr};
        attention_kernels(isa).quantize_query(q.data(), d, &found);
        attention_kernels(Isa::kScalar).quantize_query(q.data(), d, &expected);
        CHECK(bytes == scalar);
        CHECK(found.scale == expected.scale);
        CHECK(found.high_sum == expected.high_sum);
        CHECK(found.low_sum == expected.low_sum);
        int high_sum = 0, low_sum = 0;
        for (std::size_t i = 0; i < d; ++i) {
          const int steps = kHighUnit * found.high[i] + found.low[i];
          CHECK(std::abs(found.scale * static_cast<double>(steps) - q[i]) <= 0.5001 * found.scale);
          CHECK(std::abs(found.high[i]) <= 127);
          CHECK(std::abs(found.low[i]) <= 64);
          high_sum += found.high[i];
          low_sum += found.low[i];
        }
        CHECK(high_sum == found.high_sum);
        CHECK(low_sum == found.low_sum);
      }
    }
  }
}

TEST_CASE("quantize_query_q4: nearest of 127 steps in each group, the same on every instruction set") {
  for (const Isa isa : available_isas()) {
    for (const std::size_t d : {1UL, 15UL, 32UL, 33UL, 64UL, 130UL}) {
      for (const float largest : {0.0F, 1.0F, 1e-30F, 3e8F}) {
        auto q = random_floats(d, d, largest);
        if (d > 3) q[3] = kNan;
        const std::size_t n = q4_groups(d);
        std::vector<std::int8_t> bytes(padded_width(d), 99), scalar(bytes);
        std::vector<float> scales(n), scalar_scales(n);
        std::vector<std::int32_t> sums(n), scalar_sums(n);
        QuantizedQuery found{bytes.data(), nullptr, 0, 0, 0, scales.data(), sums.data()};
        QuantizedQuery expected{scalar.data(), nullptr, 0, 0, 0, scalar_scales.data(), scalar_sums.data()};
        attention_kernels(isa).quantize_query_q4(q.data(), d, &found);
        attention_kernels(Isa::kScalar).quantize_query_q4(q.data(), d, &expected);
        CHECK(bytes == scalar);
        CHECK(scales == scalar_scales);
        CHECK(sums == scalar_sums);
        CHECK(found.scale == 1);
        for (std::size_t i = 0; i < bytes.size(); ++i) {
          sums[i / kQ4Group] -= bytes[i];
          const float x = i < d && !std::isnan(q[i]) ? q[i] : 0.0F;
          CHECK(std::abs(scales[i / kQ4Group] * static_cast<double>(bytes[i]) - x) <=
                0.5001 * scales[i / kQ4Group]);
        }
        CHECK(sums == std::vector<std::int32_t>(n));
      }
    }
  }
}

TEST_CASE("quantize_q4: the extreme of a group is -8 steps, the same bytes on every instruction set") {
  for (const Isa isa : available_isas()) {
    for (const std::size_t d : {1UL, 15UL, 32UL, 33UL, 64UL, 130UL}) {
      for (const float largest : {0.0F, 1.0F, 1e-37F, 3e-35F, 1e38F}) {
        auto x = random_floats(d, static_cast<std::uint32_t>(d), largest);
        x[d / 2] = d % 2 == 0 ? largest : -largest;
        const std::size_t n = q4_groups(d);
        std::vector<std::uint8_t> steps(n * kQ4Group, 99), scalar(n * kQ4Group, 99);
        std::vector<std::uint16_t> scales(n), scalar_scales(n);
        attention_kernels(isa).quantize_q4(x.data(), d, steps.data(), scales.data());
        attention_kernels(Isa::kScalar).quantize_q4(x.data(), d, scalar.data(), scalar_scales.data());
        CHECK(steps == scalar);
        CHECK(scales == scalar_scales);
        for (std::size_t i = 0; i < n * kQ4Group; ++i) {
          if (i >= d || largest < 1e-36F) {
            CHECK(steps[i] == 8);
            continue;
          }
          const double scale = std::bit_cast<float>(std::uint32_t{scales[i / kQ4Group]} << 16);
          const double kept = scale * (steps[i] - 8.0);
          CHECK(steps[i] <= 15);
          // Half a step, or a whole one at the end of the range that has no step of its own.
          const bool at_end = steps[i] == 15 && x[i] / scale > 7;
          CHECK(std::abs(kept - x[i]) <= (at_end ? 1.02 : 0.501) * std::abs(scale));
        }
        if (largest >= 1e-36F) CHECK(steps[d / 2] == 0);
      }
    }
    std::vector<float> odd(40, 1.0F);
    odd[3] = kNan;
    odd[35] = std::numeric_limits<float>::infinity();
    std::vector<std::uint8_t> steps(64);
    std::uint16_t scales[2];
    attention_kernels(isa).quantize_q4(odd.data(), odd.size(), steps.data(), scales);
    CHECK(steps[0] == 0);
    CHECK(steps[3] == 8);
    CHECK(std::bit_cast<float>(std::uint32_t{scales[0]} << 16) == -0.125F);
    CHECK(std::isinf(std::bit_cast<float>(std::uint32_t{scales[1]} << 16)));
  }
}

}  // namespace
}  // namespace terrace::test
