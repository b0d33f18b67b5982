// SPDX-License-Identifier: Apache-2.0
#include "engine/weight_plan.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <tuple>
#include <utility>

#include "engine/checked.h"
#include "engine/checksum.h"
#include "engine/error.h"
#include "engine/quote.h"
#include "engine/strict_json.h"

namespace terrace {
namespace {

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorCode::kBadFile, message); }

std::string where(std::string_view name) { return "tensor '" + std::string(name) + "'"; }

std::string shape_text(std::span<const std::uint64_t> shape) {
  std::string text = "[";
  for (const std::uint64_t n : shape) text += (text.size() == 1 ? "" : ", ") + std::to_string(n);
  return text + "]";
}

bool is_padding(std::string_view name) noexcept { return name.starts_with(kPaddingPrefix); }

/// Shape times element size must be exactly the bytes between the offsets.
void check_size(const HeaderEntry& entry) {
  if (entry.end < entry.begin) {
    fail(where(entry.name) + ": data_offsets end at " + std::to_string(entry.end) +
         ", before they begin at " + std::to_string(entry.begin));
  }
  const auto elements = checked_product(entry.shape, where(entry.name) + ": number of elements");
  const auto bytes =
      checked_mul(elements, stored_type_bytes(entry.type), where(entry.name) + ": size in bytes");
  if (bytes != entry.end - entry.begin) {
    fail(where(entry.name) + ": " + stored_type_name(entry.type) + " " + shape_text(entry.shape) + " needs " +
         std::to_string(bytes) + " bytes, data_offsets hold " + std::to_string(entry.end - entry.begin));
  }
}

void check_padding(const HeaderEntry& entry) {
  const std::string_view number = std::string_view(entry.name).substr(kPaddingPrefix.size());
  const bool numbered = !number.empty() && number.find_first_not_of("0123456789") == std::string_view::npos;
  if (!numbered || entry.type != StoredType::kU8 || entry.shape.size() != 1 ||
      entry.shape[0] >= kTensorAlignment) {
    fail(where(entry.name) + ": a padding is 'pad.<number>', U8, one axis of fewer than " +
         std::to_string(kTensorAlignment) + " bytes");
  }
}

/// The shape its scale must have, for a quantised weight; nullopt for any other tensor. Throws where the
/// weight itself cannot be quantised weights.
std::optional<std::pair<StoredType, std::vector<std::uint64_t>>> expected_scale(const TensorInfo& tensor) {
  const auto dtype = weight_dtype(tensor);
  if (!dtype || !is_quantized(*dtype)) return std::nullopt;
  if (tensor.shape.empty()) fail(where(tensor.name) + ": a quantised weight needs at least one axis");
  constexpr std::uint64_t kRowStep = kQ4Columns / 2;  // bytes
  if (dtype == DType::kQ4 && tensor.shape.back() % kRowStep != 0) {
    fail(where(tensor.name) + ": a q4 row has " + std::to_string(tensor.shape.back()) +
         " bytes, expected a multiple of " + std::to_string(kRowStep));
  }
  return scales_of(*dtype, tensor.shape);
}

}  // namespace

WeightPlan::WeightPlan(WeightHeader header, std::uint64_t data_begin, std::uint64_t file_bytes)
    : metadata_(std::move(header.metadata)) {
  check_format();
  place(std::move(header.tensors), data_begin, file_bytes);
  index_names();
  check_scales();
  read_checksums();
}

void WeightPlan::check_format() const {
  const std::string* format = metadata("format");
  if (format == nullptr)
    fail("no model file: metadata has no 'format', expected '" + std::string(kModelFormat) + "'");
  if (*format != kModelFormat) {
    fail("no model file: metadata 'format' is " + quote_text(*format) + ", expected '" +
         std::string(kModelFormat) + "'");
  }
  const std::string* version = metadata("format_version");
  if (version == nullptr || *version != kModelFormatVersion) {
    fail("metadata 'format_version' is " + (version ? quote_text(*version) : "missing") +
         ", this build reads '" + std::string(kModelFormatVersion) + "'");
  }
  if (metadata("config") == nullptr) fail("metadata has no 'config'");
}

void WeightPlan::place(std::vector<HeaderEntry> entries, std::uint64_t data_begin, std::uint64_t file_bytes) {
  // An empty tensor may share its offset with the next one; it goes first.
  std::stable_sort(entries.begin(), entries.end(), [](const HeaderEntry& a, const HeaderEntry& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  const std::uint64_t data_bytes = file_bytes - data_begin;
  std::uint64_t next = 0;
  for (HeaderEntry& entry : entries) {
    check_size(entry);
    if (entry.begin != next) {
      fail(where(entry.name) + ": data_offsets begin at " + std::to_string(entry.begin) + ", " +
           (entry.begin < next ? "inside the tensor before it" : "a hole") + "; expected " +
           std::to_string(next));
    }
    if (entry.end > data_bytes) {
      fail(where(entry.name) + ": data_offsets end at " + std::to_string(entry.end) + ", the file holds " +
           std::to_string(data_bytes) + " bytes of data (cut short?)");
    }
    next = entry.end;

    const bool padding = is_padding(entry.name);
    if (padding) check_padding(entry);
    const std::uint64_t offset = checked_add(data_begin, entry.begin, where(entry.name) + ": offset");
    if (!padding && offset % kTensorAlignment != 0) {
      fail(where(entry.name) + ": starts at byte " + std::to_string(offset) +
           " of the file, expected a multiple of " + std::to_string(kTensorAlignment));
    }
    (padding ? paddings_ : tensors_)
        .push_back(
            {std::move(entry.name), entry.type, std::move(entry.shape), offset, entry.end - entry.begin, {}});
  }
  if (next != data_bytes) {
    fail("tensors end at byte " + std::to_string(next) + " of the data, the file holds " +
         std::to_string(data_bytes) + " bytes");
  }
}

void WeightPlan::index_names() {
  by_name_.resize(tensors_.size());
  std::iota(by_name_.begin(), by_name_.end(), 0U);
  std::sort(by_name_.begin(), by_name_.end(),
            [this](std::uint32_t a, std::uint32_t b) { return tensors_[a].name < tensors_[b].name; });
}

void WeightPlan::check_scales() const {
  for (const TensorInfo& tensor : tensors_) {
    const TensorInfo* scale = find(tensor.name + std::string(kScaleSuffix));
    const auto expected = expected_scale(tensor);
    if (!expected) {
      if (scale != nullptr) {
        fail(where(scale->name) + ": a scale for " + where(tensor.name) + ", which is " +
             stored_type_name(tensor.type) + " and has none");
      }
      continue;
    }
    const auto& [type, shape] = *expected;
    if (scale == nullptr) {
      fail(where(tensor.name) + ": quantised (" + stored_type_name(tensor.type) + "), but there is no '" +
           tensor.name + std::string(kScaleSuffix) + "'");
    }
    if (scale->type != type || scale->shape != shape) {
      fail(where(scale->name) + ": expected " + stored_type_name(type) + " " + shape_text(shape) +
           ", found " + stored_type_name(scale->type) + " " + shape_text(scale->shape));
    }
  }
}

void WeightPlan::read_checksums() {
  const std::string* text = metadata("checksums");
  if (text == nullptr) return;
  const nlohmann::json checksums = parse_strict_json(*text, "metadata 'checksums'");
  if (!checksums.is_object()) fail("metadata 'checksums': expected a JSON object");
  for (const auto& [name, value] : checksums.items()) {
    const auto checksum =
        value.is_string() ? checksum_from_hex(value.get_ref<const std::string&>()) : std::nullopt;
    if (!checksum)
      fail("metadata 'checksums': value of " + quote_text(name) + " is not 16 lower-case hex digits");
    const TensorInfo* tensor = find(name);
    if (tensor == nullptr) fail("metadata 'checksums': there is no tensor " + quote_text(name));
    tensors_[static_cast<std::size_t>(tensor - tensors_.data())].checksum = checksum;
  }
}

const TensorInfo* WeightPlan::find(std::string_view name) const noexcept {
  const auto at =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [this](std::uint32_t i, std::string_view n) { return tensors_[i].name < n; });
  return at != by_name_.end() && tensors_[*at].name == name ? &tensors_[*at] : nullptr;
}

const std::string* WeightPlan::metadata(std::string_view key) const noexcept {
  const auto at = metadata_.find(key);
  return at == metadata_.end() ? nullptr : &at->second;
}

std::optional<DType> weight_dtype(const TensorInfo& tensor) noexcept {
  switch (tensor.type) {
    case StoredType::kF32:
      return DType::kF32;
    case StoredType::kBf16:
      return DType::kBf16;
    case StoredType::kI8:
      return DType::kQ8;
    case StoredType::kU8:
      if (tensor.name == kTokenizerData || is_padding(tensor.name)) return std::nullopt;
      return DType::kQ4;
    default:
      return std::nullopt;
  }
}

std::pair<StoredType, std::vector<std::uint64_t>> scales_of(DType dtype, std::vector<std::uint64_t> stored) {
  if (dtype == DType::kQ8) {
    stored.pop_back();
    return {StoredType::kF32, std::move(stored)};
  }
  stored.back() /= kQ4Group / 2;
  return {StoredType::kBf16, std::move(stored)};
}

std::vector<std::uint64_t> weight_shape(const TensorInfo& tensor) {
  std::vector<std::uint64_t> shape = tensor.shape;
  if (weight_dtype(tensor) == DType::kQ4)
    shape.back() = checked_mul(shape.back(), std::uint64_t{2}, "width of tensor '" + tensor.name + "'");
  return shape;
}

}  // namespace terrace
