// SPDX-License-Identifier: Apache-2.0
#include "models/protobuf_reader.h"

#include <string>

#include "engine/error.h"

namespace terrace {
namespace {

std::uint64_t little_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<std::uint8_t>(bytes[i]);
  return value;
}

}  // namespace

std::optional<ProtobufField> ProtobufReader::next() {
  if (at_ == message_.size()) return std::nullopt;
  const std::size_t start = at_;
  const std::uint64_t tag = varint();
  if (tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF) fail("a field number out of range");
  ProtobufField field{static_cast<std::uint32_t>(tag >> 3), static_cast<std::uint32_t>(tag & 7), 0, {}, {}};
  switch (field.wire_type) {
    case 0:
      field.value = varint();
      break;
    case 1:
      field.value = little_endian(take(8));
      break;
    case 2:
      field.payload = take(varint());
      break;
    case 5:
      field.value = little_endian(take(4));
      break;
    default:
      fail("an unknown wire type");
  }
  field.encoded = message_.substr(start, at_ - start);
  return field;
}

void ProtobufReader::fail(const char* what) const {
  throw Error(ErrorCode::kBadFile, "SentencePiece model: " + std::string(what) + " at byte " +
                                       std::to_string(at_) + " of a message");
}

std::uint64_t ProtobufReader::varint() {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = static_cast<std::uint8_t>(take(1)[0]);
    value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  fail("an integer of more than ten bytes");
}

std::string_view ProtobufReader::take(std::uint64_t length) {
  if (length > message_.size() - at_) fail("the end of the data inside a field");
  const std::string_view bytes = message_.substr(at_, static_cast<std::size_t>(length));
  at_ += bytes.size();
  return bytes;
}

}  // namespace terrace
