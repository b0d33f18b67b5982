// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/tensor.h"
#include "engine/weight_header.h"

namespace terrace {

/// One tensor of a model file.
struct TensorInfo {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<std::uint64_t> shape;  ///< as stored: a q4 row of n columns counts n / 2 bytes
  std::uint64_t offset = 0;          ///< of the first byte, from the start of the file
  std::uint64_t bytes = 0;
  std::optional<std::uint64_t> checksum;  ///< from the metadata
};

/// Values that metadata must have for a file to be one of ours.
inline constexpr std::string_view kModelFormat = "terrace";
inline constexpr std::string_view kModelFormatVersion = "1";
/// Zero bytes that fill a file up to the next aligned tensor: `pad.<number>`.
inline constexpr std::string_view kPaddingPrefix = "pad.";
/// `<weight>.scale` holds the scales of a quantised weight.
inline constexpr std::string_view kScaleSuffix = ".scale";
/// The original file of the tokenizer, byte by byte.
inline constexpr std::string_view kTokenizerData = "tokenizer.data";

/// How a tensor stores weights; nullopt for a type that holds none (tokenizer bytes, padding, I64, ...).
std::optional<DType> weight_dtype(const TensorInfo& tensor) noexcept;
/// Shape in elements: the stored shape with a q4 row counted in columns.
std::vector<std::uint64_t> weight_shape(const TensorInfo& tensor);
/// Type and shape of the scales of q8 or q4 weights of that stored shape, which has at least one axis.
std::pair<StoredType, std::vector<std::uint64_t>> scales_of(DType dtype, std::vector<std::uint64_t> stored);

/// Where everything in a model file lies, checked against all rules of docs/model-file.md: offsets without
/// gap or overlap up to the last byte, shape x type = bytes in exact arithmetic, alignment, paddings, a scale
/// of the right shape for every quantised weight, format version, well-formed checksums. Reader and writer
/// share it, so a file that was written can be read.
class WeightPlan {
 public:
  /// Checks `header` for a file of `file_bytes` bytes whose data begin at byte `data_begin`. Allocates in
  /// proportion to the header. Throws Error{kBadFile}.
  WeightPlan(WeightHeader header, std::uint64_t data_begin, std::uint64_t file_bytes);

  /// All tensors in file order, without the paddings.
  std::span<const TensorInfo> tensors() const noexcept { return tensors_; }
  std::span<const TensorInfo> paddings() const noexcept { return paddings_; }

  /// nullptr where there is no tensor of that name.
  const TensorInfo* find(std::string_view name) const noexcept;
  /// nullptr where there is no such key.
  const std::string* metadata(std::string_view key) const noexcept;
  const std::map<std::string, std::string, std::less<>>& metadata() const noexcept { return metadata_; }

 private:
  void check_format() const;
  void place(std::vector<HeaderEntry> entries, std::uint64_t data_begin, std::uint64_t file_bytes);
  void index_names();
  void check_scales() const;
  void read_checksums();

  std::vector<TensorInfo> tensors_;
  std::vector<TensorInfo> paddings_;
  std::vector<std::uint32_t> by_name_;  ///< indices into tensors_, sorted by name
  std::map<std::string, std::string, std::less<>> metadata_;
};

}  // namespace terrace
