// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "engine/error.h"

/// The one place where integers that came from a file are added, multiplied, rounded and narrowed.
///
/// A loader reads counts, lengths and offsets that an attacker may have chosen. Every formula over such a
/// number goes through this header, so that no size can wrap around between its check and its use. Each
/// operation has two forms: `try_*` returns nullopt where the exact result does not fit; `checked_*` throws
/// Error{kBadFile} and names the quantity.
namespace terrace {

/// a + b, or nullopt where T cannot hold it.
template <std::unsigned_integral T>
[[nodiscard]] constexpr std::optional<T> try_add(T a, T b) noexcept {
  if (a > std::numeric_limits<T>::max() - b) return std::nullopt;
  return static_cast<T>(a + b);
}

/// a * b, or nullopt where T cannot hold it.
template <std::unsigned_integral T>
[[nodiscard]] constexpr std::optional<T> try_mul(T a, T b) noexcept {
  if (b != 0 && a > std::numeric_limits<T>::max() / b) return std::nullopt;
  return static_cast<T>(a * b);
}

/// The smallest multiple of `multiple` (> 0) that is not below `value`, or nullopt where T cannot hold it.
template <std::unsigned_integral T>
[[nodiscard]] constexpr std::optional<T> try_round_up(T value, T multiple) noexcept {
  const T rest = static_cast<T>(value % multiple);
  return rest == 0 ? std::optional<T>(value) : try_add(value, static_cast<T>(multiple - rest));
}

/// `value` as a `To`, or nullopt where `To` has no such value.
template <std::integral To, std::integral From>
[[nodiscard]] constexpr std::optional<To> try_narrow(From value) noexcept {
  if (!std::in_range<To>(value)) return std::nullopt;
  return static_cast<To>(value);
}

/// The product of all factors (1 for none), or nullopt where the product of the non-zero ones does not fit: a
/// zero among them must not hide that the others overflow, since somebody may multiply just those.
[[nodiscard]] constexpr std::optional<std::uint64_t> try_product(
    std::span<const std::uint64_t> factors) noexcept {
  std::optional<std::uint64_t> product = 1;
  bool empty = false;
  for (const std::uint64_t factor : factors) {
    empty = empty || factor == 0;
    product = try_mul(*product, factor == 0 ? 1 : factor);
    if (!product) return std::nullopt;
  }
  return empty ? 0 : product;
}

namespace detail {

[[noreturn]] inline void throw_out_of_range(std::string_view what, const std::string& formula) {
  throw Error(ErrorCode::kBadFile, std::string(what) + ": " + formula + " is out of range");
}

}  // namespace detail

/// As try_add; throws Error{kBadFile} "<what>: <a> + <b> is out of range".
template <std::unsigned_integral T>
[[nodiscard]] constexpr T checked_add(T a, T b, std::string_view what) {
  const auto result = try_add(a, b);
  if (!result) detail::throw_out_of_range(what, std::to_string(a) + " + " + std::to_string(b));
  return *result;
}

/// As try_mul; throws Error{kBadFile}.
template <std::unsigned_integral T>
[[nodiscard]] constexpr T checked_mul(T a, T b, std::string_view what) {
  const auto result = try_mul(a, b);
  if (!result) detail::throw_out_of_range(what, std::to_string(a) + " * " + std::to_string(b));
  return *result;
}

/// As try_round_up; throws Error{kBadFile}.
template <std::unsigned_integral T>
[[nodiscard]] constexpr T checked_round_up(T value, T multiple, std::string_view what) {
  const auto result = try_round_up(value, multiple);
  if (!result) {
    detail::throw_out_of_range(
        what, std::to_string(value) + " rounded up to a multiple of " + std::to_string(multiple));
  }
  return *result;
}

/// As try_narrow; throws Error{kBadFile}.
template <std::integral To, std::integral From>
[[nodiscard]] constexpr To checked_narrow(From value, std::string_view what) {
  const auto result = try_narrow<To>(value);
  if (!result) detail::throw_out_of_range(what, std::to_string(value));
  return *result;
}

/// As try_product; throws Error{kBadFile}.
[[nodiscard]] inline std::uint64_t checked_product(std::span<const std::uint64_t> factors,
                                                   std::string_view what) {
  const auto result = try_product(factors);
  if (!result) {
    std::string formula;
    for (const std::uint64_t factor : factors) {
      formula += (formula.empty() ? "" : " * ") + std::to_string(factor);
    }
    detail::throw_out_of_range(what, formula);
  }
  return *result;
}

/// bytes[offset, offset + size), or Error{kBadFile} where that is not all inside `bytes`.
[[nodiscard]] inline std::span<const std::byte> checked_subspan(std::span<const std::byte> bytes,
                                                                std::uint64_t offset, std::uint64_t size,
                                                                std::string_view what) {
  const auto end = try_add(offset, size);
  if (!end || *end > bytes.size()) {
    throw Error(ErrorCode::kBadFile, std::string(what) + ": " + std::to_string(size) + " bytes at offset " +
                                         std::to_string(offset) + " do not lie inside " +
                                         std::to_string(bytes.size()) + " bytes");
  }
  return bytes.subspan(offset, size);
}

/// The little-endian unsigned integer in the first sizeof(T) bytes; Error{kBadFile} where there are fewer.
template <std::unsigned_integral T>
[[nodiscard]] constexpr T checked_read_le(std::span<const std::byte> bytes, std::string_view what) {
  if (bytes.size() < sizeof(T)) {
    throw Error(ErrorCode::kBadFile, std::string(what) + ": expected " + std::to_string(sizeof(T)) +
                                         " bytes, found " + std::to_string(bytes.size()));
  }
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value | static_cast<T>(std::to_integer<T>(bytes[i]) << (8 * i)));
  }
  return value;
}

}  // namespace terrace
