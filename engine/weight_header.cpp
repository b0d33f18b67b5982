// SPDX-License-Identifier: Apache-2.0
#include "engine/weight_header.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/error.h"
#include "engine/quote.h"

namespace terrace {
namespace {

struct StoredTypeRow {
  StoredType type;
  const char* name;
  std::uint64_t bytes;
};

constexpr std::array kStoredTypes{
    StoredTypeRow{StoredType::kBool, "BOOL", 1}, StoredTypeRow{StoredType::kU8, "U8", 1},
    StoredTypeRow{StoredType::kI8, "I8", 1},     StoredTypeRow{StoredType::kU16, "U16", 2},
    StoredTypeRow{StoredType::kI16, "I16", 2},   StoredTypeRow{StoredType::kF16, "F16", 2},
    StoredTypeRow{StoredType::kBf16, "BF16", 2}, StoredTypeRow{StoredType::kU32, "U32", 4},
    StoredTypeRow{StoredType::kI32, "I32", 4},   StoredTypeRow{StoredType::kF32, "F32", 4},
    StoredTypeRow{StoredType::kU64, "U64", 8},   StoredTypeRow{StoredType::kI64, "I64", 8},
    StoredTypeRow{StoredType::kF64, "F64", 8},
};

constexpr std::string_view kMetadataKey = "__metadata__";

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorCode::kBadFile, "header: " + message); }

/// Follows the header's grammar event by event, so that no document is built and the first wrong token ends
/// it:
///   { "__metadata__": { key: string ... },
///     name: { "dtype": string, "shape": [n ...], "data_offsets": [n, n] } ... }
class HeaderHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  WeightHeader take() && { return std::move(header_); }

  bool key(string_t& name) override {
    switch (place_) {
      case Place::kTop:
        start_entry(name);
        break;
      case Place::kMetadata:
        if (header_.metadata.contains(name))
          fail("key " + quote_text(name) + " appears twice in __metadata__");
        metadata_key_ = name;
        break;
      case Place::kTensor:
        start_field(name);
        break;
      default:
        unexpected("a key");
    }
    return true;
  }

  bool start_object(std::size_t) override {
    switch (place_) {
      case Place::kOutside:
        place_ = Place::kTop;
        break;
      case Place::kTop:
        place_ = in_metadata_ ? Place::kMetadata : Place::kTensor;
        break;
      default:
        unexpected("an object");
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) finish_tensor();
    place_ = place_ == Place::kTop ? Place::kOutside : Place::kTop;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::kTensor || field_ == Field::kDtype) unexpected("an array");
    place_ = field_ == Field::kShape ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && n_offsets_ != 2)
      fail(where() + ": data_offsets needs exactly two numbers");
    place_ = Place::kTensor;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      auto& shape = header_.tensors.back().shape;
      if (shape.size() == kMaxTensorRank) {
        fail(where() + ": more than " + std::to_string(kMaxTensorRank) + " dimensions");
      }
      shape.push_back(value);
    } else if (place_ == Place::kOffsets) {
      if (n_offsets_ == 2) fail(where() + ": data_offsets needs exactly two numbers");
      HeaderEntry& entry = header_.tensors.back();
      (n_offsets_++ == 0 ? entry.begin : entry.end) = value;
    } else {
      unexpected("a number");
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      header_.metadata.emplace(metadata_key_, std::move(value));
    } else if (place_ == Place::kTensor && field_ == Field::kDtype) {
      const auto type = stored_type_from_name(value);
      if (!type) fail(where() + ": unknown dtype " + quote_text(value));
      header_.tensors.back().type = *type;
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool number_integer(number_integer_t) override { unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    unexpected("a number that is no integer of at most 64 bits");
  }
  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool binary(binary_t&) override { unexpected("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    // The library's own text quotes the offending token, which may be as long as the file.
    fail("not valid JSON at byte " + std::to_string(position));
  }

 private:
  enum class Place : std::uint8_t { kOutside, kTop, kMetadata, kTensor, kShape, kOffsets };
  enum class Field : std::uint8_t { kNone = 0, kDtype = 1, kShape = 2, kOffsets = 4 };
  static constexpr unsigned kAllFields = 7;

  void start_entry(const std::string& name) {
    in_metadata_ = name == kMetadataKey;
    if (in_metadata_) {
      if (seen_metadata_) fail("__metadata__ appears twice");
      seen_metadata_ = true;
      return;
    }
    if (!is_tensor_name(name)) {
      fail(quote_text(name) + " is no tensor name (1 to " + std::to_string(kMaxTensorName) +
           " letters, digits, '.', '_' or '-')");
    }
    header_.tensors.emplace_back().name = name;
    field_ = Field::kNone;
    seen_fields_ = 0;
    n_offsets_ = 0;
  }

  void start_field(const std::string& name) {
    if (name == "dtype") {
      field_ = Field::kDtype;
    } else if (name == "shape") {
      field_ = Field::kShape;
    } else if (name == "data_offsets") {
      field_ = Field::kOffsets;
    } else {
      fail(where() + ": unknown key " + quote_text(name));
    }
    if ((seen_fields_ & static_cast<unsigned>(field_)) != 0) fail(where() + ": " + name + " appears twice");
    seen_fields_ |= static_cast<unsigned>(field_);
  }

  void finish_tensor() const {
    if (seen_fields_ != kAllFields) fail(where() + ": needs dtype, shape and data_offsets");
  }

  std::string where() const { return "tensor '" + header_.tensors.back().name + "'"; }

  [[noreturn]] void unexpected(const std::string& what) const {
    switch (place_) {
      case Place::kOutside:
        fail(what + " instead of an object");
      case Place::kTop:
        fail(what + " instead of the object of " + (in_metadata_ ? "__metadata__" : where()));
      case Place::kMetadata:
        fail(what + " as value of __metadata__ key " + quote_text(metadata_key_) + ", expected a string");
      case Place::kTensor:
      case Place::kShape:
      case Place::kOffsets:
        break;
    }
    fail(where() + ": " + what + " in " +
         (field_ == Field::kDtype   ? "dtype"
          : field_ == Field::kShape ? "shape"
                                    : "data_offsets"));
  }

  WeightHeader header_;
  Place place_ = Place::kOutside;
  Field field_ = Field::kNone;
  unsigned seen_fields_ = 0;
  int n_offsets_ = 0;
  bool in_metadata_ = false;
  bool seen_metadata_ = false;
  std::string metadata_key_;
};

void check_unique_names(const std::vector<HeaderEntry>& tensors) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const HeaderEntry& entry : tensors) names.emplace_back(entry.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) fail("tensor " + quote_text(*twice) + " appears twice");
}

}  // namespace

const char* stored_type_name(StoredType type) noexcept {
  return kStoredTypes[static_cast<std::size_t>(type)].name;
}

std::uint64_t stored_type_bytes(StoredType type) noexcept {
  return kStoredTypes[static_cast<std::size_t>(type)].bytes;
}

std::optional<StoredType> stored_type_from_name(std::string_view name) noexcept {
  const auto* row = std::find_if(kStoredTypes.begin(), kStoredTypes.end(),
                                 [name](const StoredTypeRow& candidate) { return name == candidate.name; });
  return row == kStoredTypes.end() ? std::nullopt : std::optional(row->type);
}

bool is_tensor_name(std::string_view name) noexcept {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  };
  return !name.empty() && name.size() <= kMaxTensorName && name != kMetadataKey &&
         std::all_of(name.begin(), name.end(), allowed);
}

WeightHeader parse_weight_header(std::string_view text) {
  if (text.empty() || text.front() != '{') fail("does not start with '{'");
  // The parser takes a zero byte for the end of the text and would let anything hide behind it.
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos) {
    fail("not valid JSON at byte " + std::to_string(zero + 1));
  }
  HeaderHandler handler;
  static_cast<void>(nlohmann::json::sax_parse(text.begin(), text.end(), &handler));
  WeightHeader header = std::move(handler).take();
  check_unique_names(header.tensors);
  return header;
}

std::string format_weight_header(const WeightHeader& header) {
  // ordered_json keeps the tensors in file order for the eyes of whoever opens the header.
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  json[std::string(kMetadataKey)] = header.metadata;
  std::string text;
  try {
    text = json.dump();
    text.pop_back();  // the tensors go in front of the last brace
    for (const HeaderEntry& entry : header.tensors) {
      const nlohmann::ordered_json value = {{"dtype", stored_type_name(entry.type)},
                                            {"shape", entry.shape},
                                            {"data_offsets", {entry.begin, entry.end}}};
      text += ",\"" + entry.name + "\":" + value.dump();
    }
    text += '}';
  } catch (const nlohmann::json::exception&) {
    throw Error(ErrorCode::kBadArgument, "metadata of a model file must be valid UTF-8");
  }
  const std::size_t rest = (kHeaderLengthBytes + text.size()) % kTensorAlignment;
  if (rest != 0) text.append(kTensorAlignment - rest, ' ');
  TERRACE_CHECK(text.size() <= kMaxHeaderBytes, kBadArgument,
                "header of " + std::to_string(text.size()) + " bytes exceeds the limit of " +
                    std::to_string(kMaxHeaderBytes));
  return text;
}

}  // namespace terrace
