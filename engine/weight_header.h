// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace terrace {

/// Element types of the safetensors container.
enum class StoredType : std::uint8_t {
  kBool,
  kU8,
  kI8,
  kU16,
  kI16,
  kF16,
  kBf16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64,
};

/// "F32", "BF16", ...: the name in the header.
const char* stored_type_name(StoredType type) noexcept;
/// Bytes of one element.
std::uint64_t stored_type_bytes(StoredType type) noexcept;
/// nullopt where no type has that name.
std::optional<StoredType> stored_type_from_name(std::string_view name) noexcept;

/// Longest header that safetensors allows.
inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
/// Bytes before the header: its length, little-endian.
inline constexpr std::uint64_t kHeaderLengthBytes = 8;
/// Every tensor of a model file starts at a multiple of this many bytes.
inline constexpr std::uint64_t kTensorAlignment = 64;
inline constexpr std::size_t kMaxTensorRank = 8;
inline constexpr std::size_t kMaxTensorName = 256;

/// One entry of the header as it was written; nothing in it has been compared with the file yet.
struct HeaderEntry {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0;  ///< data_offsets, relative to the first byte after the header
  std::uint64_t end = 0;
};

struct WeightHeader {
  std::vector<HeaderEntry> tensors;  ///< in the order of the text
  std::map<std::string, std::string, std::less<>> metadata;
};

/// Letters, digits, '.', '_' and '-', between 1 and kMaxTensorName of them.
bool is_tensor_name(std::string_view name) noexcept;

/// Parses the JSON text of a safetensors header. Enforces: starts with '{', valid UTF-8, every tensor has
/// exactly dtype, shape and data_offsets, known dtypes, non-negative integers, at most kMaxTensorRank
/// dimensions, `__metadata__` maps strings to strings, no key twice, nothing nested deeper than that. Memory
/// stays proportional to the text, whatever the numbers in it say, and the parser does not recurse. Throws
/// Error{kBadFile}.
WeightHeader parse_weight_header(std::string_view text);

/// The text that parse_weight_header reads back, padded with spaces so that kHeaderLengthBytes + its length
/// is a multiple of kTensorAlignment. Throws Error{kBadArgument} when that exceeds kMaxHeaderBytes.
std::string format_weight_header(const WeightHeader& header);

}  // namespace terrace
