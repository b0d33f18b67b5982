// SPDX-License-Identifier: Apache-2.0
#include "engine/weight_writer.h"

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/checked.h"
#include "engine/error.h"
#include "engine/quote.h"

namespace terrace {
namespace {

constexpr std::string_view kChecksums = "checksums";

std::string checksums_text(const std::vector<std::pair<std::string, std::uint64_t>>& checksums) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, checksum] : checksums) json[name] = checksum_to_hex(checksum);
  return json.dump();
}

/// Offsets of `tensors` one after another, paddings between them.
std::vector<HeaderEntry> lay_out(const std::vector<TensorSpec>& tensors) {
  std::vector<HeaderEntry> entries;
  std::uint64_t next = 0;
  std::uint64_t n_paddings = 0;
  for (const TensorSpec& spec : tensors) {
    TERRACE_CHECK(is_tensor_name(spec.name) && !spec.name.starts_with(kPaddingPrefix), kBadArgument,
                  quote_text(spec.name) + " is no tensor name");
    const std::uint64_t bytes =
        checked_mul(checked_product(spec.shape, spec.name), stored_type_bytes(spec.type), spec.name);
    const std::uint64_t end = checked_add(next, bytes, spec.name);
    entries.push_back({spec.name, spec.type, spec.shape, next, end});
    next = checked_round_up(end, kTensorAlignment, spec.name);
    if (next != end) {
      std::string name(kPaddingPrefix);
      name += std::to_string(n_paddings++);
      entries.push_back({std::move(name), StoredType::kU8, {next - end}, end, next});
    }
  }
  return entries;
}

}  // namespace

std::vector<TensorSpec> weight_specs(const std::string& name, DType dtype, std::vector<std::uint64_t> shape) {
  if (dtype == DType::kF32) return {{name, StoredType::kF32, std::move(shape)}};
  if (dtype == DType::kBf16) return {{name, StoredType::kBf16, std::move(shape)}};
  TERRACE_CHECK(!shape.empty(), kBadArgument, "'" + name + "': a scalar cannot be quantised");
  const bool is_q4 = dtype == DType::kQ4;
  TERRACE_CHECK(!is_q4 || shape.back() % kQ4Columns == 0, kBadArgument,
                "'" + name + "': rows of " + std::to_string(shape.back()) +
                    " cannot be q4, expected a multiple of " + std::to_string(kQ4Columns));
  if (is_q4) shape.back() /= 2;
  auto [scale_type, scale] = scales_of(dtype, shape);
  return {{name, is_q4 ? StoredType::kU8 : StoredType::kI8, std::move(shape)},
          {name + std::string(kScaleSuffix), scale_type, std::move(scale)}};
}

WeightWriter::WeightWriter(const std::string& path, const std::vector<TensorSpec>& tensors,
                           const std::map<std::string, std::string>& metadata) {
  try {
    header_.metadata.insert(metadata.begin(), metadata.end());
    header_.metadata["format"] = kModelFormat;
    header_.metadata["format_version"] = kModelFormatVersion;
    header_.tensors = lay_out(tensors);
    std::vector<std::pair<std::string, std::uint64_t>> placeholders;
    placeholders.reserve(tensors.size());
    for (const TensorSpec& spec : tensors) placeholders.emplace_back(spec.name, 0);
    header_.metadata[std::string(kChecksums)] = checksums_text(placeholders);

    const std::string text = format_weight_header(header_);
    const std::uint64_t data_begin = kHeaderLengthBytes + text.size();
    const std::uint64_t data_bytes = header_.tensors.empty() ? 0 : header_.tensors.back().end;
    file_bytes_ = checked_add(data_begin, data_bytes, "size of the file");
    // The reader's own parser and checks, so that what is written can be read.
    plan_.emplace(parse_weight_header(text), data_begin, file_bytes_);
  } catch (const Error& error) {
    throw Error(ErrorCode::kBadArgument, "cannot write '" + path + "': " + error.what());
  }
  progress_.resize(plan_->tensors().size());
  file_.emplace(path, file_bytes_);
}

void WeightWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  const TensorInfo* tensor = plan_->find(name);
  TERRACE_CHECK(tensor != nullptr, kBadArgument, "tensor " + quote_text(name) + " was not declared");
  Progress& progress = progress_[static_cast<std::size_t>(tensor - plan_->tensors().data())];
  TERRACE_CHECK(bytes.size() <= tensor->bytes - progress.written, kBadArgument,
                "tensor '" + tensor->name + "' has " + std::to_string(tensor->bytes) + " bytes; " +
                    std::to_string(bytes.size()) + " more after " + std::to_string(progress.written) +
                    " do not fit");
  file_->write_at(tensor->offset + progress.written, bytes);
  progress.checksum.update(bytes);
  progress.written += bytes.size();
}

void WeightWriter::commit() {
  std::vector<std::pair<std::string, std::uint64_t>> checksums;
  for (std::size_t i = 0; i < progress_.size(); ++i) {
    const TensorInfo& tensor = plan_->tensors()[i];
    TERRACE_CHECK(progress_[i].written == tensor.bytes, kBadArgument,
                  "cannot commit '" + file_->path() + "': tensor '" + tensor.name + "' has " +
                      std::to_string(progress_[i].written) + " of " + std::to_string(tensor.bytes) +
                      " bytes");
    checksums.emplace_back(tensor.name, progress_[i].checksum.digest());
  }
  header_.metadata[std::string(kChecksums)] = checksums_text(checksums);
  const std::string text = format_weight_header(header_);
  std::array<std::byte, kHeaderLengthBytes> length;
  for (std::size_t i = 0; i < length.size(); ++i) length[i] = static_cast<std::byte>(text.size() >> (8 * i));
  file_->write_at(0, length);
  file_->write_at(kHeaderLengthBytes, std::as_bytes(std::span(text)));
  file_->commit();
}

std::uint64_t WeightWriter::tensor_bytes() const noexcept {
  std::uint64_t bytes = 0;  // cannot wrap: below file_bytes_
  for (const TensorInfo& tensor : plan_->tensors()) bytes += tensor.bytes;
  return bytes;
}

}  // namespace terrace
