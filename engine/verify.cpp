// SPDX-License-Identifier: Apache-2.0
#include "engine/verify.h"

#include <algorithm>
#include <span>
#include <utility>

#include "engine/checksum.h"
#include "engine/error.h"

namespace terrace {
namespace {

/// Bytes between two progress reports; small enough that hashing and scanning find the piece in the cache.
constexpr std::uint64_t kPieceBytes = 1U << 20;

/// Elements that must not occur in one tensor, counted over its pieces.
struct BadElements {
  std::uint64_t count = 0;
  std::uint64_t first = 0;
};

/// Adds the elements of `piece` (a whole number of T) for which `is_bad` holds; `base` is the index of its
/// first one.
template <class T, class IsBad>
void count_bad(std::span<const std::byte> piece, std::uint64_t base, IsBad is_bad, BadElements& bad) {
  const auto* elements = reinterpret_cast<const T*>(piece.data());
  const std::size_t n = piece.size() / sizeof(T);
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < n; ++i) count += is_bad(elements[i]) ? 1 : 0;  // no branch: vectorises
  if (count == 0) return;
  if (bad.count == 0) {
    bad.first = base + static_cast<std::uint64_t>(std::find_if(elements, elements + n, is_bad) - elements);
  }
  bad.count += count;
}

constexpr auto kIsNonfiniteF32 = [](std::uint32_t bits) { return (bits & 0x7f800000U) == 0x7f800000U; };
constexpr auto kIsNonfiniteBf16 = [](std::uint16_t bits) { return (bits & 0x7f80U) == 0x7f80U; };
constexpr auto kIsMinus128 = [](std::int8_t value) { return value == -128; };
constexpr auto kIsNonzero = [](std::uint8_t value) { return value != 0; };

/// What the bad elements of a tensor are; nullptr for a tensor in which every bit pattern is a value.
const char* bad_kind(const TensorInfo& tensor, bool padding) noexcept {
  if (padding) return "padding bytes that are not zero";
  switch (tensor.type) {
    case StoredType::kF32:
    case StoredType::kBf16:
      return "values that are NaN or infinite";
    case StoredType::kI8:
      return "int8 weights of -128, expected -127 to 127";
    default:
      return nullptr;
  }
}

void scan(const TensorInfo& tensor, bool padding, std::span<const std::byte> piece, std::uint64_t begin,
          BadElements& bad) {
  if (padding) {
    count_bad<std::uint8_t>(piece, begin, kIsNonzero, bad);
  } else if (tensor.type == StoredType::kF32) {
    count_bad<std::uint32_t>(piece, begin / 4, kIsNonfiniteF32, bad);
  } else if (tensor.type == StoredType::kBf16) {
    count_bad<std::uint16_t>(piece, begin / 2, kIsNonfiniteBf16, bad);
  } else if (tensor.type == StoredType::kI8) {
    count_bad<std::int8_t>(piece, begin, kIsMinus128, bad);
  }
}

class Verifier {
 public:
  Verifier(const WeightFile& file, const ByteProgress& progress) : file_(file), progress_(progress) {
    for (const TensorInfo& tensor : file.tensors()) total_ += tensor.bytes;
    for (const TensorInfo& tensor : file.paddings()) total_ += tensor.bytes;
  }

  VerifyReport run() && {
    for (const TensorInfo& tensor : file_.tensors()) check(tensor, /*padding=*/false);
    for (const TensorInfo& tensor : file_.paddings()) check(tensor, /*padding=*/true);
    report(0);
    return std::move(report_);
  }

 private:
  void check(const TensorInfo& tensor, bool padding) {
    Checksum checksum;
    BadElements bad;
    for (std::uint64_t begin = 0; begin < tensor.bytes; begin += kPieceBytes) {
      const std::uint64_t size = std::min(kPieceBytes, tensor.bytes - begin);
      if (const MappedFile* mapping = file_.mapping()) {
        mapping->check_not_shortened();
        mapping->will_need(tensor.offset + begin, 4 * kPieceBytes);
      }
      const auto piece = file_.data(tensor).subspan(begin, size);
      checksum.update(piece);
      scan(tensor, padding, piece, begin, bad);
      if (const MappedFile* mapping = file_.mapping()) mapping->release(tensor.offset + begin, size);
      report(size);
    }
    if (!padding) {
      ++report_.n_tensors;
      compare(tensor, checksum.digest());
    }
    if (bad.count > 0) {
      add_problem(tensor, std::to_string(bad.count) + " " + bad_kind(tensor, padding) +
                              ", the first at element " + std::to_string(bad.first));
    }
  }

  void compare(const TensorInfo& tensor, std::uint64_t found) {
    if (!tensor.checksum) {
      add_problem(tensor, "no checksum in the file's metadata");
    } else if (*tensor.checksum != found) {
      add_problem(tensor, "checksum is " + checksum_to_hex(found) + ", the file's metadata says " +
                              checksum_to_hex(*tensor.checksum));
    }
  }

  void add_problem(const TensorInfo& tensor, std::string message) {
    report_.problems.push_back({tensor.name, std::move(message)});
  }

  void report(std::uint64_t bytes) {
    report_.n_bytes += bytes;
    TERRACE_CHECK(!progress_ || progress_(report_.n_bytes, total_), kCancelled, "verification was stopped");
  }

  const WeightFile& file_;
  const ByteProgress& progress_;
  std::uint64_t total_ = 0;
  VerifyReport report_;
};

}  // namespace

void check_scales(const WeightFile& file, std::uint64_t limit_bytes) {
  std::vector<const TensorInfo*> scales;
  std::uint64_t bytes = 0;
  for (const TensorInfo& tensor : file.tensors()) {
    const auto dtype = weight_dtype(tensor);
    if (!dtype || !is_quantized(*dtype)) continue;
    scales.push_back(&file.get(tensor.name + std::string(kScaleSuffix)));
    bytes += scales.back()->bytes;
  }
  if (bytes > limit_bytes) return;
  for (const TensorInfo* scale : scales) {
    BadElements bad;
    scan(*scale, /*padding=*/false, file.data(*scale), 0, bad);
    TERRACE_CHECK(bad.count == 0, kBadFile,
                  "'" + file.label() + "': tensor '" + scale->name + "' holds " + std::to_string(bad.count) +
                      " " + bad_kind(*scale, /*padding=*/false) + ", the first at element " +
                      std::to_string(bad.first));
  }
}

VerifyReport verify(const WeightFile& file, const ByteProgress& progress) {
  return Verifier(file, progress).run();
}

}  // namespace terrace
