// SPDX-License-Identifier: Apache-2.0
#include "tools/common/npy.h"

#include <fmt/format.h>

#include <bit>

#include "engine/error.h"

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

}  // namespace

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
