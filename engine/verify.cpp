// SPDX-License-Identifier: Apache-2.0
#include "engine/verify.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "engine/error.h"

namespace terrace {
namespace {

/// Bytes between two progress reports; small enough that hashing and scanning find the piece in the cache.
constexpr std::uint64_t kPieceBytes = 1U << 20;

constexpr auto kIsNonfiniteF32 = [](std::uint32_t bits) { return (bits & 0x7f800000U) == 0x7f800000U; };
constexpr auto kIsNonfiniteBf16 = [](std::uint16_t bits) { return (bits & 0x7f80U) == 0x7f80U; };
constexpr auto kIsDenormal = [](std::uint32_t bits) {
  return (bits & 0x7f800000U) == 0 && (bits & 0x007fffffU) != 0;
};
constexpr auto kIsMinus128 = [](std::int8_t value) { return value == -128; };
constexpr auto kIsNonzero = [](std::uint8_t value) { return value != 0; };

/// What a tensor is for, as far as it decides which bit patterns are allowed.
enum class Role { kValues, kScale, kPadding };

/// Finds elements that must not occur in one tensor, fed piece by piece.
class Scan {
 public:
  Scan(const TensorInfo& tensor, Role role) noexcept : type_(tensor.type), role_(role) {}

  /// `piece` holds whole elements; `begin` is the offset of its first byte in the tensor.
  void add(std::span<const std::byte> piece, std::uint64_t begin) {
    if (role_ == Role::kPadding) {
      count<std::uint8_t>(piece, begin, kIsNonzero, bad_);
    } else if (type_ == StoredType::kF32) {
      count<std::uint32_t>(piece, begin, kIsNonfiniteF32, bad_);
      if (role_ == Role::kScale) count<std::uint32_t>(piece, begin, kIsDenormal, denormal_);
    } else if (type_ == StoredType::kBf16) {
      count<std::uint16_t>(piece, begin, kIsNonfiniteBf16, bad_);
    } else if (type_ == StoredType::kI8) {
      count<std::int8_t>(piece, begin, kIsMinus128, bad_);
    }
  }

  /// One line for each kind of bad element.
  std::vector<std::string> problems() const {
    const char* kind = role_ == Role::kPadding    ? "padding bytes that are not zero"
                       : type_ == StoredType::kI8 ? "int8 weights of -128, expected -127 to 127"
                                                  : "values that are NaN or infinite";
    std::vector<std::string> lines;
    if (bad_.count > 0) lines.push_back(describe(bad_, kind));
    if (denormal_.count > 0) lines.push_back(describe(denormal_, "scales that are denormal numbers"));
    return lines;
  }

 private:
  struct BadElements {
    std::uint64_t count = 0;
    std::uint64_t first = 0;
  };

  template <class T, class IsBad>
  static void count(std::span<const std::byte> piece, std::uint64_t begin, IsBad is_bad, BadElements& bad) {
    const auto* elements = reinterpret_cast<const T*>(piece.data());
    const std::size_t n = piece.size() / sizeof(T);
    std::uint64_t found = 0;
    for (std::size_t i = 0; i < n; ++i) found += is_bad(elements[i]) ? 1 : 0;  // no branch: vectorises
    if (found == 0) return;
    if (bad.count == 0) {
      const auto first = std::find_if(elements, elements + n, is_bad) - elements;
      bad.first = begin / sizeof(T) + static_cast<std::uint64_t>(first);
    }
    bad.count += found;
  }

  static std::string describe(const BadElements& bad, const char* kind) {
    return std::to_string(bad.count) + " " + kind + ", the first at element " + std::to_string(bad.first);
  }

  StoredType type_;
  Role role_;
  BadElements bad_;
  BadElements denormal_;
};

/// Whether a tensor holds the scales of a quantised weight; norms have a `.scale` too.
Role role_of(const WeightFile& file, const TensorInfo& tensor) {
  const std::string_view name = tensor.name;
  if (!name.ends_with(kScaleSuffix)) return Role::kValues;
  const TensorInfo* weight = file.find(name.substr(0, name.size() - kScaleSuffix.size()));
  const auto dtype = weight ? weight_dtype(*weight) : std::nullopt;
  return dtype && is_quantized(*dtype) ? Role::kScale : Role::kValues;
}

/// What is wrong with a tensor whose bytes have this checksum; nothing where the file does not say.
std::optional<std::string> checksum_problem(const TensorInfo& tensor, std::uint64_t found) {
  if (!tensor.checksum || *tensor.checksum == found) return std::nullopt;
  return "checksum is " + checksum_to_hex(found) + ", the file's metadata says " +
         checksum_to_hex(*tensor.checksum);
}

class Verifier {
 public:
  Verifier(const WeightFile& file, const ByteProgress& progress) : file_(file), progress_(progress) {
    for (const TensorInfo& tensor : file.tensors()) total_ += tensor.bytes;
    for (const TensorInfo& tensor : file.paddings()) total_ += tensor.bytes;
  }

  VerifyReport run() && {
    for (const TensorInfo& tensor : file_.tensors()) {
      ++report_.n_tensors;
      check(tensor, role_of(file_, tensor));
    }
    for (const TensorInfo& tensor : file_.paddings()) check(tensor, Role::kPadding);
    report(0);
    return std::move(report_);
  }

 private:
  void check(const TensorInfo& tensor, Role role) {
    Checksum checksum;
    Scan scan(tensor, role);
    for (std::uint64_t begin = 0; begin < tensor.bytes; begin += kPieceBytes) {
      const std::uint64_t size = std::min(kPieceBytes, tensor.bytes - begin);
      if (const MappedFile* mapping = file_.mapping()) {
        mapping->check_not_shortened();
        mapping->will_need(tensor.offset + begin, 4 * kPieceBytes);
      }
      const auto piece = file_.data(tensor).subspan(begin, size);
      checksum.update(piece);
      scan.add(piece, begin);
      if (const MappedFile* mapping = file_.mapping()) mapping->release(tensor.offset + begin, size);
      report(size);
    }
    std::vector<std::string> damage = scan.problems();
    if (role != Role::kPadding) {
      if (!tensor.checksum) {
        ++report_.n_without_checksum;
        add_problem(tensor, "no checksum in the file's metadata");
      } else if (auto problem = checksum_problem(tensor, checksum.digest())) {
        damage.insert(damage.begin(), std::move(*problem));
      }
    }
    if (damage.empty()) return;
    ++(role == Role::kPadding ? report_.n_damaged_paddings : report_.n_damaged);
    for (std::string& message : damage) add_problem(tensor, std::move(message));
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
    Scan scan(*scale, Role::kScale);
    scan.add(file.data(*scale), 0);
    for (const std::string& problem : scan.problems()) {
      throw Error(ErrorCode::kBadFile,
                  "'" + file.label() + "': tensor '" + scale->name + "' holds " + problem);
    }
  }
}

void TensorCheck::finish() const {
  const auto problem = checksum_problem(tensor_, checksum_.digest());
  TERRACE_CHECK(!problem, kBadFile,
                "'" + file_.label() + "': tensor '" + tensor_.name + "' is damaged: its " + *problem);
}

VerifyReport verify(const WeightFile& file, const ByteProgress& progress) {
  return Verifier(file, progress).run();
}

}  // namespace terrace
