// SPDX-License-Identifier: Apache-2.0
// libFuzzer target for the reader of model files: whatever the bytes, parse() returns or throws Error, and no
// view that it hands out reaches outside them. Needs no seed files: the mutator starts from the corpus of the
// unit tests.
//   cmake --preset fuzz && cmake --build --preset fuzz --target fuzz_weight_file
//   build/fuzz/tests/fuzz_weight_file -max_total_time=60
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "engine/error.h"
#include "engine/verify.h"
#include "engine/weight_file.h"
#include "tests/support/aligned_copy.h"
#include "tests/support/broken_model_files.h"

namespace terrace {
namespace {

constexpr std::size_t kDataBytes = 512;

void read(std::span<const std::byte> bytes) {
  const test::AlignedCopy copy(bytes);
  try {
    const WeightFile file = WeightFile::parse(copy.bytes(), "fuzz");
    for (const TensorInfo& tensor : file.tensors()) {
      if (!weight_dtype(tensor)) continue;
      const WeightView view = file.weight(tensor.name);
      if (row_bytes(view.dtype, view.cols) * view.rows != tensor.bytes) std::abort();
    }
    static_cast<void>(verify(file));  // touches every byte of every tensor
  } catch (const Error&) {
  }
}

/// Small files to start from: one valid one and the broken ones.
const std::vector<std::vector<std::byte>>& seeds() {
  static const std::vector<std::vector<std::byte>> files = [] {
    std::vector<std::vector<std::byte>> all{test::valid_model_file()};
    for (test::BrokenFile& broken : test::broken_model_files()) {
      if (broken.bytes.size() < 8192) all.push_back(std::move(broken.bytes));
    }
    return all;
  }();
  return files;
}

}  // namespace
}  // namespace terrace

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  constexpr unsigned kRestart = 32;  // one mutation in so many begins again from a seed
  if (seed % kRestart == 0) {
    const auto& file = terrace::seeds()[seed / kRestart % terrace::seeds().size()];
    size = std::min(file.size(), max_size);
    std::copy_n(reinterpret_cast<const std::uint8_t*>(file.data()), size, data);
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  terrace::read(bytes);
  // Again as header text in a container whose length is right, which random bytes would seldom hit.
  const std::string_view text(reinterpret_cast<const char*>(data) + std::min<std::size_t>(8, size),
                              size - std::min<std::size_t>(8, size));
  const std::size_t text_end = text.find_last_of('}');
  terrace::read(terrace::test::model_file(text.substr(0, text_end == text.npos ? text.size() : text_end + 1),
                                          std::vector<std::byte>(terrace::kDataBytes)));
  return 0;
}
