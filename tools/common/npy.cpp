// SPDX-License-Identifier: Apache-2.0
#include "tools/common/npy.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>

#include "engine/error.h"
#include "engine/quote.h"
#include "tools/common/input.h"

namespace terrace::tools {
namespace {

static_assert(std::endian::native == std::endian::little, "the header below says '<f4'");

/// Everything before the values: magic (6 bytes), version (2), length of the description (2), the
/// description, which ends in "\n" and fills up to a multiple of 64.
std::string npy_head(std::size_t rows, std::size_t cols) {
  constexpr std::size_t kPreamble = 10;
  std::string description =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, cols);
  description.resize((kPreamble + description.size() + 1 + 63) / 64 * 64 - kPreamble, ' ');
  description.back() = '\n';
  std::string head = "\x93NUMPY\x01";
  head += '\0';
  head += static_cast<char>(description.size() & 0xff);
  head += static_cast<char>(description.size() >> 8);
  return head + description;
}

/// Takes `text` from the front of `rest`; false if it does not stand there.
bool take(std::string_view& rest, std::string_view text) {
  if (!rest.starts_with(text)) return false;
  rest.remove_prefix(text.size());
  return true;
}

std::optional<std::size_t> take_number(std::string_view& rest) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (error != std::errc()) return std::nullopt;
  rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
  return value;
}

/// (rows, cols) of a description; nothing if it is not a float32 matrix in row order.
std::optional<std::pair<std::size_t, std::size_t>> parse_description(std::string_view rest) {
  if (!take(rest, "{'descr': '<f4', 'fortran_order': False, 'shape': (")) return std::nullopt;
  const std::optional<std::size_t> rows = take_number(rest);
  if (!rows || !take(rest, ", ")) return std::nullopt;
  const std::optional<std::size_t> cols = take_number(rest);
  if (!cols || !take(rest, "), }")) return std::nullopt;
  return std::pair(*rows, *cols);
}

}  // namespace

NpyMatrix read_npy(const std::string& path) {
  const std::string file = read_file(path);
  constexpr std::string_view kMagic("\x93NUMPY\x01\0", 8);
  constexpr std::size_t kPreamble = 10;
  const bool has_head = file.size() >= kPreamble && std::string_view(file).starts_with(kMagic);
  TERRACE_CHECK(has_head, kBadFile, fmt::format("{}: expected a NumPy file (.npy, version 1)", path));
  const auto byte = [&](std::size_t i) { return std::size_t{static_cast<unsigned char>(file[i])}; };
  const std::size_t begin = kPreamble + byte(8) + 256 * byte(9);
  const std::string_view description = std::string_view(file).substr(kPreamble, begin - kPreamble);
  const auto shape = parse_description(description);
  TERRACE_CHECK(
      shape.has_value(), kBadFile,
      fmt::format("{}: expected a float32 matrix in row order, found {}", path, quote_text(description)));
  NpyMatrix matrix{shape->first, shape->second, {}};
  const std::size_t limit = file.size() / sizeof(float);
  const bool fits = matrix.cols == 0 || matrix.rows <= limit / matrix.cols;
  TERRACE_CHECK(fits && file.size() == begin + matrix.rows * matrix.cols * sizeof(float), kBadFile,
                fmt::format("{}: expected {} rows of {} numbers, found {} bytes of them", path, matrix.rows,
                            matrix.cols, file.size() - std::min(begin, file.size())));
  matrix.values.resize(matrix.rows * matrix.cols);
  std::memcpy(matrix.values.data(), file.data() + begin, matrix.values.size() * sizeof(float));
  return matrix;
}

NpyWriter::NpyWriter(const std::string& path, std::size_t rows, std::size_t cols)
    : NpyWriter(path, npy_head(rows, cols), rows, cols) {}

NpyWriter::NpyWriter(const std::string& path, const std::string& head, std::size_t rows, std::size_t cols)
    : file_(path, head.size() + std::uint64_t{rows} * cols * sizeof(float)),
      offset_(head.size()),
      rows_left_(rows),
      cols_(cols) {
  file_.write_at(0, std::as_bytes(std::span(head)));
}

void NpyWriter::add_row(std::span<const float> row) {
  TERRACE_CHECK(row.size() == cols_ && rows_left_ > 0, kInternal,
                "npy: a row more or of another length than announced");
  file_.write_at(offset_, std::as_bytes(row));
  offset_ += row.size_bytes();
  --rows_left_;
}

void NpyWriter::commit() {
  TERRACE_CHECK(rows_left_ == 0, kInternal, "npy: fewer rows than announced");
  file_.commit();
}

}  // namespace terrace::tools
