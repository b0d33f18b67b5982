// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "engine/verify.h"
#include "engine/weight_file.h"
#include "engine/weight_writer.h"

// Shared by the functions that make one model file from another.

namespace terrace {

/// Bytes of input processed at a time: enough to be worth waking threads, and progress stays smooth.
inline constexpr std::size_t kPieceBytes = std::size_t{8} << 20;

/// The metadata of `in` except for what the writer makes itself.
inline std::map<std::string, std::string> copied_metadata(const WeightFile& in) {
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : in.metadata()) {
    if (key != "format" && key != "format_version" && key != "checksums") metadata.emplace(key, value);
  }
  return metadata;
}

/// The pages of a tensor that is done need not stay in memory.
inline void release_pages(const WeightFile& in, const TensorInfo& tensor) {
  if (in.mapping() != nullptr) in.mapping()->release(tensor.offset, tensor.bytes);
}

/// take(piece) for each piece of a tensor. Throws Error{kBadFile} where the bytes do not have the tensor's
/// checksum: the checksum of what is made from them would hide the damage.
template <class Take>
void read_tensor(const WeightFile& in, const TensorInfo& tensor, Take&& take) {
  TensorCheck check(in, tensor);
  for (auto bytes = in.data(tensor); !bytes.empty();) {
    const auto piece = bytes.first(std::min(bytes.size(), kPieceBytes));
    check.update(piece);
    take(piece);
    bytes = bytes.subspan(piece.size());
  }
  check.finish();
  release_pages(in, tensor);
}

/// Copies a tensor's bytes under its own name; report(bytes) is called after each piece. Throws as
/// read_tensor.
template <class Report>
void copy_tensor(const WeightFile& in, const TensorInfo& tensor, WeightWriter& writer, Report&& report) {
  read_tensor(in, tensor, [&](std::span<const std::byte> piece) {
    writer.write(tensor.name, piece);
    report(piece.size());
  });
}

}  // namespace terrace
