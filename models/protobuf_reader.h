// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace terrace {

/// One field of a protocol-buffer message.
struct ProtobufField {
  std::uint32_t number;
  std::uint32_t wire_type;   ///< 0 varint, 1 fixed 64, 2 length-delimited, 5 fixed 32
  std::uint64_t value;       ///< varint and fixed
  std::string_view payload;  ///< length-delimited
  std::string_view encoded;  ///< the whole field, tag included
};

/// Reads the fields of a serialized message one after another; copies nothing.
/// Wire format: https://protobuf.dev/programming-guides/encoding/ . Groups (wire types 3 and 4) are refused.
class ProtobufReader {
 public:
  explicit ProtobufReader(std::string_view message) : message_(message) {}

  /// The next field, or nullopt at the end. Throws Error{kBadFile} with the offset of the first wrong byte.
  std::optional<ProtobufField> next();

 private:
  [[noreturn]] void fail(const char* what) const;
  std::uint64_t varint();
  std::string_view take(std::uint64_t length);

  std::string_view message_;
  std::size_t at_ = 0;
};

}  // namespace terrace
