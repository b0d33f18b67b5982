// SPDX-License-Identifier: Apache-2.0
#include "attention/kernels/attention_kernels.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "attention/kv_rows.h"
#include "engine/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/naive_attention.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kHidden = -std::numeric_limits<double>::infinity();

std::vector<Isa> vector_isas() {
  std::vector<Isa> isas = available_isas();
  isas.erase(isas.begin());
  if (isas.empty()) MESSAGE("no vector instruction set on this CPU: only the scalar kernels were tested");
  return isas;
}

/// A page of one head with its queries, and what a kernel says about it.
struct Page {
  std::size_t d_k, d_v;
  std::vector<float> keys, values;              // as in kv_page.h
  std::vector<std::uint16_t> keys16, values16;  // the same numbers, exactly, as bf16
  std::vector<std::int8_t> keys8, values8;      // and as q8
  std::vector<float> scales8;
  std::vector<std::byte> keys4, values4;  // numbers of their own
  Matrix k, v, k4, v4;                    // [kPageSlots, d]
  std::vector<float> q;
  std::vector<PageSpan> spans;
  std::vector<float> query_position, key_position;
  bool penalties = false;
  std::size_t n_slots = kPageSlots;

  Page(std::size_t d_k_, std::size_t d_v_, std::vector<PageSpan> spans_, std::uint32_t seed)
      : d_k(d_k_),
        d_v(d_v_),
        keys(kPageSlots * d_k_),
        values(kPageSlots * padded_width(d_v_)),
        keys16(keys.size()),
        values16(values.size()),
        keys8(kPageSlots * quads(d_k_) * kQuad),
        values8(values.size()),
        scales8(2 * kPageSlots),
        keys4(kPageSlots / kLanes * q4_key_run(d_k_)),
        values4(q4_groups(d_v_) * kQ4ValueRun),
        k(kPageSlots, d_k_),
        v(kPageSlots, d_v_),
        k4(kPageSlots, d_k_),
        v4(kPageSlots, d_v_),
        q(random_floats(spans_.size() * d_k_, seed, 3.0F)),
        spans(std::move(spans_)) {
    const auto key_numbers = random_floats(kPageSlots * d_k, seed + 1, 127);
    const auto value_numbers = random_floats(kPageSlots * d_v, seed + 2, 127);
    for (std::size_t s = 0; s < kPageSlots; ++s) {
      scales8[s] = 1.0F / static_cast<float>(32 << s % 3);
      scales8[kPageSlots + s] = 1.0F / static_cast<float>(32 << s % 5);
      for (std::size_t d = 0; d < d_k; ++d) {
        const float step = std::nearbyint(key_numbers[s * d_k + d]);
        keys8[q8_key_index(s, d / kQuad, d_k) + d % kQuad] = static_cast<std::int8_t>(step);
        put(step * scales8[s], key_index(s, d, d_k), keys, keys16);
        k(s, d) = keys[key_index(s, d, d_k)];
      }
      for (std::size_t d = 0; d < d_v; ++d) {
        const float step = std::nearbyint(value_numbers[s * d_v + d]);
        values8[q8_value_index(s, d, d_v)] = static_cast<std::int8_t>(step);
        put(step * scales8[kPageSlots + s], s * padded_width(d_v) + d, values, values16);
        v(s, d) = values[s * padded_width(d_v) + d];
      }
    }
    fill_q4(seed);
  }

  /// Steps of -8 .. 7 and scales of either sign, other ones for every slot and group of channels.
  void fill_q4(std::uint32_t seed) {
    const auto scale = q4_scale;
    const auto key_steps = random_floats(kPageSlots * d_k, seed + 3, 7.49F);
    const auto value_steps = random_floats(kPageSlots * d_v, seed + 4, 7.49F);
    for (std::size_t s = 0; s < kPageSlots; ++s) {
      for (std::size_t g = 0; g < q4_groups(d_k); ++g) {
        put_scale(keys4, q4_key_scale_index(s, g, d_k), scale(s, g));
      }
      for (std::size_t d = 0; d < d_k; ++d) {
        const int step = std::max(-8, static_cast<int>(std::floor(key_steps[s * d_k + d])));
        const std::size_t at = q4_key_index(s, d / 8, d_k) + d % 4;
        keys4[at] |= static_cast<std::byte>((step + 8) << (d % 8 / 4 * 4));
        k4(s, d) = scale(s, d / 32) * static_cast<float>(step);
      }
      for (std::size_t g = 0; g < q4_groups(d_v); ++g) {
        put_scale(values4, q4_value_scale_index(s, g), scale(s, g + 1));
      }
      for (std::size_t d = 0; d < d_v; ++d) {
        const int step = std::max(-8, static_cast<int>(std::floor(value_steps[s * d_v + d])));
        values4[q4_value_index(s, d / 32, d % 16)] |= static_cast<std::byte>((step + 8) << (d % 32 / 16 * 4));
        v4(s, d) = scale(s, d / 32 + 1) * static_cast<float>(step);
      }
    }
  }
  static float q4_scale(std::size_t slot, std::size_t group) {
    return (slot % 3 == 0 ? -1.0F : 1.0F) / static_cast<float>(4 << (slot + group) % 4);
  }
  static void put_scale(std::vector<std::byte>& to, std::size_t at, float scale) {
    const auto bits = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(scale) >> 16);
    std::memcpy(to.data() + at, &bits, sizeof bits);
  }

  const Matrix& keys_of(KvType type) const { return type == KvType::kQ4 ? k4 : k; }
  const Matrix& values_of(KvType type) const { return type == KvType::kQ4 ? v4 : v; }

  static void put(float x, std::size_t at, std::vector<float>& wide, std::vector<std::uint16_t>& narrow) {
    wide[at] = x;
    narrow[at] = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16);
  }

  /// The same page where only `n` slots are there: the group of slot n is open, and what comes behind is NaN.
  Page cut_off(std::size_t n) const {
    Page cut = *this;
    cut.n_slots = n;
    for (std::size_t s = n / kLanes * kLanes; s < kPageSlots; ++s) {
      const bool open = s / kLanes == n / kLanes;
      for (std::size_t d = 0; d < d_k; ++d) {
        const std::size_t to = open ? open_key_index(s, d, d_k) : key_index(s, d, d_k);
        put(s < n ? keys[key_index(s, d, d_k)] : kNan, to, cut.keys, cut.keys16);
      }
      for (std::size_t i = 0; i < quads(d_k); ++i) {
        const std::size_t to = open ? open_q8_key_index(s, i, d_k) : q8_key_index(s, i, d_k);
        for (std::size_t c = 0; c < kQuad; ++c) {
          cut.keys8[to + c] = s < n ? keys8[q8_key_index(s, i, d_k) + c] : std::int8_t{-128};
        }
      }
      if (s >= n) cut.scales8[s] = cut.scales8[kPageSlots + s] = kNan;
      for (std::size_t i = 0; i < octets(d_k); ++i) {
        const std::size_t to = open ? open_q4_key_index(s, i, d_k) : q4_key_index(s, i, d_k);
        std::memset(cut.keys4.data() + to, 0xA7, kQuad);
        if (s < n) std::memcpy(cut.keys4.data() + to, keys4.data() + q4_key_index(s, i, d_k), kQuad);
      }
      for (std::size_t g = 0; s >= n && g < q4_groups(d_k); ++g) {
        put_scale(cut.keys4, q4_key_scale_index(s, g, d_k), kNan);
      }
      for (std::size_t g = 0; s >= n && g < q4_groups(d_v); ++g) {
        put_scale(cut.values4, q4_value_scale_index(s, g), kNan);
      }
    }
    return cut;
  }

  std::vector<float> attend(Isa isa, KvType type) const {
    std::vector<const float*> rows;
    for (std::size_t r = 0; r < spans.size(); ++r) rows.push_back(q.data() + r * d_k);
    std::vector<float> states(spans.size() * state_floats(d_v), kNan);
    PageTask task;
    task.d_k = d_k;
    task.d_v = d_v;
    task.n_slots = n_slots;
    task.q = rows.data();
    task.spans = spans.data();
    task.n_rows = spans.size();
    task.scale = 0.5F;
    if (penalties) {
      task.query_position = query_position.data();
      task.key_position = key_position.data();
      task.future_penalty = 1e9F;
      task.self_penalty = 1e5F;
      task.pad_penalty = 1e9F;
    }
    task.states = states.data();
    const AttentionKernels& kernels = attention_kernels(isa);
    std::vector<std::int8_t> bytes(2 * spans.size() * padded_width(d_k));
    std::vector<std::int32_t> sums(spans.size() * q4_groups(d_k));
    std::vector<float> scales(sums.size());
    std::vector<QuantizedQuery> queries(spans.size());
    for (std::size_t r = 0; r < spans.size(); ++r) {
      queries[r].high = bytes.data() + 2 * r * padded_width(d_k);
      queries[r].low = queries[r].high + padded_width(d_k);
      queries[r].group_sums = sums.data() + r * q4_groups(d_k);
      queries[r].group_scales = scales.data() + r * q4_groups(d_k);
      (type == KvType::kQ4 ? kernels.quantize_query_q4 : kernels.quantize_query)(rows[r], d_k, &queries[r]);
    }
    task.quantized_q = queries.data();
    switch (type) {
      case KvType::kF32:
        task.keys = keys.data();
        task.values = values.data();
        kernels.attend_page_f32(task);
        break;
      case KvType::kBf16:
        task.keys = keys16.data();
        task.values = values16.data();
        kernels.attend_page_bf16(task);
        break;
      case KvType::kQ8:
        task.keys = keys8.data();
        task.values = values8.data();
        task.key_scale = scales8.data();
        task.value_scale = scales8.data() + kPageSlots;
        kernels.attend_page_q8(task);
        break;
      case KvType::kQ4:
        task.keys = keys4.data();
        task.values = values4.data();
        kernels.attend_page_q4(task);
        break;
    }
    for (std::size_t r = 0; r < spans.size(); ++r) {  // the header is two numbers; the rest is free
      std::fill_n(states.begin() + static_cast<std::ptrdiff_t>(r * state_floats(d_v) + 2), kStateHeader - 2,
                  0.0F);
    }
    return states;
  }
};

/// How far a page may be from its double version; q8 rounds queries and weights to 14 bits.
double bound(KvType type) { return type == KvType::kQ8 || type == KvType::kQ4 ? 1e-3 : 5e-6; }

/// Values of which attention gives its weights.
Matrix unit_values() {
  Matrix one(kPageSlots, kPageSlots);
  for (std::size_t s = 0; s < kPageSlots; ++s) one(s, s) = 1;
  return one;
}

/// What q4 makes of the page's values: the weights of a row times the values' scales are rounded to a 127th
/// of the largest in their group of channels.
Matrix naive_q4_values(const Page& page, const Matrix& weights) {
  Matrix y(weights.rows, page.d_v);
  for (std::size_t t = 0; t < y.rows; ++t) {
    for (std::size_t c = 0; c < page.d_v; ++c) {
      const auto scale = [&](std::size_t s) { return double{Page::q4_scale(s, c / kQ4Group + 1)}; };
      double unit = 0;
      for (std::size_t s = 0; s < kPageSlots; ++s) {
        unit = std::max(unit, std::abs(weights(t, s) * scale(s)) / 127);
      }
      for (std::size_t s = 0; s < kPageSlots; ++s) {
        y(t, c) += std::nearbyint(weights(t, s) * scale(s) / unit) * unit * (page.v4(s, c) / scale(s));
      }
    }
  }
  return y;
}

std::vector<PageSpan> random_spans(std::size_t n, std::uint32_t seed) {
  std::vector<PageSpan> spans(n);
  const auto numbers = random_floats(2 * n, seed, 0.5F);
  for (std::size_t r = 0; r < n; ++r) {
    const auto begin = static_cast<std::uint16_t>((numbers[2 * r] + 0.5F) * 127);
    const auto length =
        static_cast<std::uint16_t>((numbers[2 * r + 1] + 0.5F) * static_cast<float>(127 - begin));
    spans[r] = {begin, static_cast<std::uint16_t>(begin + 1 + length)};
  }
  return spans;
}

std::vector<float> finished(Isa isa, const std::vector<float>& states, std::size_t n, std::size_t d_v) {
  std::vector<float> y(n * d_v);
  for (std::size_t r = 0; r < n; ++r) {
    attention_kernels(isa).finish(states.data() + r * state_floats(d_v), d_v, y.data() + r * d_v);
  }
  return y;
}

TEST_CASE("attend_page: agrees with a double version for any span, width and number of rows") {
  for (const Isa isa : available_isas()) {
    for (const auto& [d_k, d_v] : {std::pair{1, 1}, {3, 5}, {8, 16}, {64, 64}, {33, 100}}) {
      for (std::size_t n = 1; n <= 9; ++n) {
        const auto spans = random_spans(n, static_cast<std::uint32_t>(n + 100));
        const Page page(d_k, d_v, spans, static_cast<std::uint32_t>(7 * n));
        const auto hidden = [&](std::size_t t, std::size_t s) {
          return s >= spans[t].begin && s < spans[t].end ? 0.0 : kHidden;
        };
        for (const KvType type : kKvTypes) {
          const Matrix q(n, page.d_k, queries_for(type, page.q, page.d_k));
          const auto attended = [&](const Matrix& values) {
            return naive_attention_head(q, page.keys_of(type), values, 0.5, hidden);
          };
          const Matrix expected = type == KvType::kQ4 ? naive_q4_values(page, attended(unit_values()))
                                                      : attended(page.values_of(type));
          CAPTURE(isa_name(isa));
          CAPTURE(n);
          CAPTURE(d_v);
          CHECK(relative_difference(finished(isa, page.attend(isa, type), n, page.d_v), expected) <
                bound(type));
        }
      }
    }
  }
}

TEST_CASE("attend_page: every instruction set gives the bits of the scalar kernel") {
  for (const Isa isa : vector_isas()) {
    for (const auto& [d_k, d_v] : {std::pair{1, 1}, {5, 3}, {64, 64}, {7, 130}}) {
      for (std::size_t n = 1; n <= 7; ++n) {
        Page page(d_k, d_v, random_spans(n, static_cast<std::uint32_t>(n)),
                  static_cast<std::uint32_t>(11 * n));
        page.query_position.assign(n, 0);
        page.key_position.assign(kPageSlots, 0);
        for (std::size_t r = 0; r < n; ++r) page.query_position[r] = static_cast<float>(20 * r);
        for (std::size_t s = 0; s < kPageSlots; ++s)
          page.key_position[s] = s < 100 ? static_cast<float>(s) : -1.0F;
        for (const KvType type : kKvTypes) {
          for (const bool penalties : {false, true}) {
            page.penalties = penalties;
            CHECK(same_bits(page.attend(isa, type), page.attend(Isa::kScalar, type)));
          }
        }
      }
    }
  }
}

TEST_CASE("attend_page: blocks of many rows have the bits of the scalar kernel") {
  for (const auto& [d_k, d_v] : {std::pair{64, 64}, {128, 40}, {192, 128}, {100, 64}, {320, 16}}) {
    for (const std::size_t n : {16, 17, 21, 37}) {
      const auto seed = static_cast<std::uint32_t>(d_k + n);
      Page page(d_k, d_v, random_spans(n, seed), 3 * seed);
      for (const std::size_t n_slots : {kPageSlots, std::size_t{77}, std::size_t{64}, std::size_t{9}}) {
        for (PageSpan& span : page.spans) {
          span.begin = std::min<std::uint16_t>(span.begin, static_cast<std::uint16_t>(n_slots - 1));
          span.end = std::min<std::uint16_t>(span.end, static_cast<std::uint16_t>(n_slots));
        }
        const Page part = n_slots == kPageSlots ? page : page.cut_off(n_slots);
        for (const KvType type : kKvTypes) {
          const std::vector<float> expected = part.attend(Isa::kScalar, type);
          for (const Isa isa : vector_isas()) {
            CAPTURE(isa_name(isa));
            CAPTURE(d_k);
            CAPTURE(n);
            CAPTURE(n_slots);
            CHECK(same_bits(part.attend(isa, type), expected));
          }
        }
      }
    }
  }
}

TEST_CASE("attend_page: a row has the same bits alone and beside others") {
  for (const Isa isa : available_isas()) {
    const auto spans = random_spans(11, 5);
    const Page all(24, 40, spans, 9);
    for (const KvType type : kKvTypes) {
      const auto together = all.attend(isa, type);
      for (std::size_t r = 0; r < spans.size(); ++r) {
        Page one = all;
        one.spans = {spans[r]};
        one.q.assign(all.q.begin() + static_cast<std::ptrdiff_t>(r * 24),
                     all.q.begin() + static_cast<std::ptrdiff_t>((r + 1) * 24));
        const auto alone = one.attend(isa, type);
        const auto at = together.begin() + static_cast<std::ptrdiff_t>(r * state_floats(40));
        CHECK(same_bits(alone, std::vector<float>(at, at + static_cast<std::ptrdiff_t>(state_floats(40)))));
      }
    }
  }
}

TEST_CASE("attend_page: slots outside a row's span may hold anything") {
  for (const Isa isa : available_isas()) {
    Page page(6, 10, {{20, 50}, {21, 70}, {40, 41}, {1, 70}, {69, 70}}, 3);
    const auto expected = page.attend(isa, KvType::kF32);
    for (std::size_t s = 0; s < kPageSlots; ++s) {
      if (s >= 1 && s < 70) continue;
      for (std::size_t d = 0; d < 6; ++d) page.keys[key_index(s, d, 6)] = kNan;
      for (std::size_t d = 0; d < 10; ++d) page.values[s * padded_width(10) + d] = kNan;
    }
    CHECK(same_bits(page.attend(isa, KvType::kF32), expected));
    // Slot 69 belongs to rows 1, 3 and 4 only: an infinity there leaves rows 0 and 2 alone.
    page.values[69 * padded_width(10)] = std::numeric_limits<float>::infinity();
    const auto touched = page.attend(isa, KvType::kF32);
    const std::size_t stride = state_floats(10);
    CHECK(touched[kStateHeader] == expected[kStateHeader]);
    CHECK(touched[2 * stride + kStateHeader] == expected[2 * stride + kStateHeader]);
    CHECK(std::isinf(touched[4 * stride + kStateHeader]));

    const auto expected8 = page.attend(isa, KvType::kQ8);
    for (std::size_t s = 0; s < kPageSlots; ++s) {
      if (s >= 1 && s < 70) continue;
      page.scales8[s] = page.scales8[kPageSlots + s] = kNan;
      for (std::size_t i = 0; i < quads(6) * kQuad; ++i)
        page.keys8[q8_key_index(s, i / kQuad, 6) + i % kQuad] = -128;
      for (std::size_t d = 0; d < 10; ++d) page.values8[q8_value_index(s, d, 10)] = -128;
    }
    CHECK(same_bits(page.attend(isa, KvType::kQ8), expected8));
    page.scales8[kPageSlots + 69] = std::numeric_limits<float>::infinity();
    const auto touched8 = page.attend(isa, KvType::kQ8);
    CHECK(touched8[kStateHeader] == expected8[kStateHeader]);
    CHECK_FALSE(std::isfinite(touched8[4 * stride + kStateHeader]));

    const auto expected4 = page.attend(isa, KvType::kQ4);
    for (std::size_t s = 0; s < kPageSlots; ++s) {
      if (s >= 1 && s < 70) continue;
      Page::put_scale(page.keys4, q4_key_scale_index(s, 0, 6), kNan);
      Page::put_scale(page.values4, q4_value_scale_index(s, 0), kNan);
      std::memset(page.keys4.data() + q4_key_index(s, 0, 6), 0xF8, kQuad);
      for (std::size_t c = 0; c < kLanes; ++c) page.values4[q4_value_index(s, 0, c)] = std::byte{0xF8};
    }
    CHECK(same_bits(page.attend(isa, KvType::kQ4), expected4));
    Page::put_scale(page.values4, q4_value_scale_index(69, 0), std::numeric_limits<float>::infinity());
    const auto touched4 = page.attend(isa, KvType::kQ4);
    CHECK(touched4[kStateHeader] == expected4[kStateHeader]);
    CHECK_FALSE(std::isfinite(touched4[4 * stride + kStateHeader]));
  }
}

TEST_CASE("attend_page: an open group gives the bits of a full one") {
  for (const Isa isa : available_isas()) {
    for (const auto& [d_k, d_v] : {std::pair{15, 3}, {64, 64}, {70, 20}, {128, 16}}) {
      for (std::size_t n = 1; n <= kPageSlots; n += n < 34 ? 1 : 7) {
        const auto end = static_cast<std::uint16_t>(n), middle = static_cast<std::uint16_t>(n / 2);
        for (std::size_t n_rows = 1; n_rows <= 5; n_rows += 2) {
          std::vector<PageSpan> spans(n_rows, {0, end});
          spans.back() = {static_cast<std::uint16_t>(n - 1), end};
          spans[n_rows / 2].end = static_cast<std::uint16_t>(n - middle);
          if (n_rows == 1) spans[0] = {middle, end};
          const Page full(d_k, d_v, spans, static_cast<std::uint32_t>(n));
          const Page open = full.cut_off(n);
          for (const KvType type : kKvTypes) {
            CAPTURE(isa_name(isa));
            CAPTURE(n);
            CAPTURE(d_k);
            CAPTURE(static_cast<int>(type));
            REQUIRE(same_bits(open.attend(isa, type), full.attend(isa, type)));
          }
        }
      }
    }
  }
}

TEST_CASE("attend_page: penalties are subtracted where positions say so") {
  for (const Isa isa : available_isas()) {
    Page page(4, 4, std::vector<PageSpan>(3, {0, 20}), 17);
    page.penalties = true;
    page.query_position = {1, 9, 15};
    page.key_position.assign(kPageSlots, 0);
    for (std::size_t s = 0; s < 20; ++s)
      page.key_position[s] = s < 16 ? static_cast<float>(s + 1) : -static_cast<float>(s);
    const Matrix q(3, 4, page.q);
    const Matrix expected = naive_attention_head(q, page.k, page.v, 0.5, [&](std::size_t t, std::size_t s) {
      const float at = page.query_position[t], key = page.key_position[s];
      return s >= 20 ? kHidden : -(key > at ? 1e9 : 0.0) - (key == at ? 1e5 : 0.0) - (key < 0 ? 1e9 : 0.0);
    });
    CHECK(relative_difference(finished(isa, page.attend(isa, KvType::kF32), 3, 4), expected) < 5e-6);
  }
}

TEST_CASE("merge: states of two sets of slots are the state of their union") {
  for (const Isa isa : available_isas()) {
    const Page page(5, 21, {{0, 30}, {30, 128}, {0, 128}}, 8);
    Page same_query = page;
    for (std::size_t i = 0; i < 15; ++i) same_query.q[i] = page.q[i % 5];
    auto states = same_query.attend(isa, KvType::kF32);
    const std::size_t stride = state_floats(21);
    attention_kernels(isa).merge(states.data(), states.data() + stride, 21);
    CHECK(states[0] == states[2 * stride]);
    CHECK(states[1] == doctest::Approx(states[2 * stride + 1]).epsilon(1e-6));
    const auto y = finished(isa, states, 3, 21);
    for (std::size_t c = 0; c < 21; ++c) CHECK(y[c] == doctest::Approx(y[42 + c]).epsilon(1e-5));
    auto scalar = same_query.attend(Isa::kScalar, KvType::kF32);
    attention_kernels(Isa::kScalar).merge(scalar.data(), scalar.data() + stride, 21);
    CHECK(same_bits(states, scalar));
  }
}

TEST_CASE("attention_kernels: an instruction set this CPU lacks is refused") {
  for (const Isa isa : {Isa::kNeon, Isa::kAvx2}) {
    if (isa_available(isa)) continue;
    expect_error(ErrorCode::kUnsupported, isa_name(isa), [&] { attention_kernels(isa); });
  }
}

}  // namespace
}  // namespace terrace::test
