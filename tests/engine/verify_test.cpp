// SPDX-License-Identifier: Apache-2.0
#include "engine/verify.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "engine/weight_writer.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace terrace {
namespace {

using test::expect_error;
using test::TemporaryDirectory;

constexpr std::uint64_t kLargeTensor = 700'003;  // floats: several pieces, no multiple of one

std::string write_model(const TemporaryDirectory& directory, const std::vector<float>& values,
                        const std::vector<std::int8_t>& q8, float q8_scale) {
  std::vector<TensorSpec> specs{{"large", StoredType::kF32, {values.size()}}};
  for (const TensorSpec& spec : weight_specs("q", DType::kQ8, {1, q8.size()})) specs.push_back(spec);
  specs.push_back({"b", StoredType::kBf16, {3}});
  std::string path = directory.file("model");
  WeightWriter writer(path, specs, {{"config", "{}"}});
  writer.write("large", std::as_bytes(std::span(values)));
  writer.write("q", std::as_bytes(std::span(q8)));
  writer.write("q.scale", std::as_bytes(std::span(&q8_scale, 1)));
  const std::uint16_t bf16[] = {0x3f80, 0x0000, 0x8000};
  writer.write("b", std::as_bytes(std::span(bf16)));
  writer.commit();
  return path;
}

TEST_CASE("A sound file has no problems, and progress ends at the total") {
  const TemporaryDirectory directory;
  const std::string path =
      write_model(directory, std::vector<float>(kLargeTensor, 0.5F), {1, -127, 127}, 1.0F);
  const WeightFile file = WeightFile::open(path);
  std::uint64_t last = 0;
  std::uint64_t total = 0;
  const VerifyReport report = verify(file, [&](std::uint64_t done, std::uint64_t all) {
    CHECK(done >= last);
    last = done;
    total = all;
    return true;
  });
  CHECK(report.problems.empty());
  CHECK(report.n_tensors == 4);
  CHECK(last == total);
  CHECK(report.n_bytes == total);
}

TEST_CASE("NaN, infinities and -128 are reported with their number and place") {
  const TemporaryDirectory directory;
  std::vector<float> values(kLargeTensor, -1.0F);
  values[kLargeTensor - 2] = std::numeric_limits<float>::quiet_NaN();
  values[kLargeTensor - 1] = -std::numeric_limits<float>::infinity();
  const std::string path =
      write_model(directory, values, {5, -128, 7}, std::numeric_limits<float>::infinity());
  const VerifyReport report = verify(WeightFile::open(path));
  REQUIRE(report.problems.size() == 3);
  CHECK(report.problems[0].tensor == "large");
  CHECK(report.problems[0].message == "2 values that are NaN or infinite, the first at element 700001");
  CHECK(report.problems[1].tensor == "q");
  CHECK(report.problems[1].message == "1 int8 weights of -128, expected -127 to 127, the first at element 1");
  CHECK(report.problems[2].tensor == "q.scale");
  CHECK(report.problems[2].message == "1 values that are NaN or infinite, the first at element 0");
  CHECK(report.n_damaged == 3);
}

TEST_CASE("A tensor with several problems is one damaged tensor") {
  const TemporaryDirectory directory;
  const std::string path = write_model(directory, {std::numeric_limits<float>::quiet_NaN(), 1.0F}, {1}, 1.0F);
  std::vector<std::byte> bytes = test::read_all(path);
  bytes[WeightFile::open(path).get("large").offset + 4] ^= std::byte{1};
  const VerifyReport report = verify(WeightFile::open(directory.write("damaged", bytes)));
  REQUIRE(report.problems.size() == 2);
  CHECK(report.problems[0].message.starts_with("checksum is "));
  CHECK(report.problems[1].message == "1 values that are NaN or infinite, the first at element 0");
  CHECK(report.n_damaged == 1);
  CHECK(report.n_without_checksum == 0);
}

TEST_CASE("Denormal numbers are values, but no scales") {
  const TemporaryDirectory directory;
  constexpr float kDenormal = std::numeric_limits<float>::denorm_min();
  constexpr float kLeast = std::numeric_limits<float>::min();
  for (const float scale : {kDenormal, -kDenormal, kLeast / 2}) {
    const WeightFile file = WeightFile::open(write_model(directory, {kDenormal}, {1}, scale));
    const VerifyReport report = verify(file);
    REQUIRE(report.problems.size() == 1);
    CHECK(report.problems[0].tensor == "q.scale");
    CHECK(report.problems[0].message == "1 scales that are denormal numbers, the first at element 0");
    expect_error(ErrorCode::kBadFile, "'q.scale' holds 1 scales that are denormal numbers",
                 [&] { check_scales(file, 4); });
  }
  CHECK(verify(WeightFile::open(write_model(directory, {kDenormal}, {1}, kLeast))).problems.empty());
}

TEST_CASE("A tensor that is read in pieces is compared with its checksum") {
  const TemporaryDirectory directory;
  const std::string path = write_model(directory, {1.0F, 2.0F, 3.0F}, {1}, 1.0F);
  const WeightFile file = WeightFile::open(path);
  const TensorInfo& tensor = file.get("large");
  TensorCheck whole(file, tensor);
  whole.update(file.data(tensor).first(4));
  whole.update(file.data(tensor).subspan(4));
  whole.finish();
  TensorCheck part(file, tensor);
  part.update(file.data(tensor).first(4));
  expect_error(ErrorCode::kBadFile, "tensor 'large' is damaged: its checksum is ", [&] { part.finish(); });
}

TEST_CASE("Every flipped bit of the data is found") {
  const TemporaryDirectory directory;
  const std::string path = write_model(directory, {1.0F, 2.0F, 3.0F}, {1, 2, 3}, 1.0F);
  const std::vector<std::byte> valid = test::read_all(path);
  const std::uint64_t data_begin = WeightFile::open(path).get("large").offset;
  for (std::size_t bit = 8 * data_begin; bit < 8 * valid.size(); ++bit) {
    CAPTURE(bit);
    std::vector<std::byte> flipped = valid;
    flipped[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    const std::string damaged = directory.write("damaged", flipped);
    CHECK_FALSE(verify(WeightFile::open(damaged)).problems.empty());
  }
}

TEST_CASE("A file without checksums says so for each tensor") {
  const TemporaryDirectory directory;
  const std::string path = write_model(directory, {1.0F}, {1}, 1.0F);
  std::vector<std::byte> bytes = test::read_all(path);
  const std::string_view key = "\"checksums\"";
  const auto key_bytes = std::as_bytes(std::span(key));
  const auto at = std::search(bytes.begin(), bytes.end(), key_bytes.begin(), key_bytes.end());
  REQUIRE(at != bytes.end());
  *(at + 1) = std::byte{'C'};
  const VerifyReport report = verify(WeightFile::open(directory.write("without", bytes)));
  REQUIRE(report.problems.size() == 4);
  CHECK(report.problems[0].message == "no checksum in the file's metadata");
  CHECK(report.n_without_checksum == 4);
  CHECK(report.n_damaged == 0);
}

TEST_CASE("Verification stops when it is told to, and when the file shrinks under it") {
  const TemporaryDirectory directory;
  const std::string path = write_model(directory, std::vector<float>(kLargeTensor, 0.5F), {1}, 1.0F);
  const WeightFile file = WeightFile::open(path);
  expect_error(ErrorCode::kCancelled, "verification was stopped",
               [&] { verify(file, [](std::uint64_t, std::uint64_t) { return false; }); });
  std::filesystem::resize_file(path, 4096);
  expect_error(ErrorCode::kBadFile, "cut short while it was in use", [&] { verify(file); });
}

TEST_CASE("Checksums are XXH3-64 and their text is exactly 16 lower-case digits") {
  Checksum checksum;
  CHECK(checksum.digest() == 0x2d06800538d394c2U);  // of nothing, seed 0: from the XXH3 specification
  const std::string text = "terrace";
  checksum.update(std::as_bytes(std::span(text).first(3)));
  checksum.update(std::as_bytes(std::span(text).subspan(3)));
  Checksum whole;
  whole.update(std::as_bytes(std::span(text)));
  CHECK(checksum.digest() == whole.digest());

  CHECK(checksum_to_hex(0x0123456789abcdefU) == "0123456789abcdef");
  CHECK(checksum_from_hex("0123456789abcdef") == 0x0123456789abcdefU);
  for (const char* bad : {"", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcdeg",
                          " 123456789abcdef"}) {
    CHECK_FALSE(checksum_from_hex(bad));
  }
}

TEST_CASE("Scales that are no numbers are found without reading the weights, unless they are too many") {
  const TemporaryDirectory directory;
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float scale : {kInf, -kInf, std::numeric_limits<float>::quiet_NaN()}) {
    const WeightFile file = WeightFile::open(write_model(directory, {kInf}, {-128, 0}, scale));
    expect_error(ErrorCode::kBadFile,
                 "'q.scale' holds 1 values that are NaN or infinite, the first at element 0",
                 [&] { check_scales(file, 4); });
    check_scales(file, 3);
  }
  for (const float scale : {1.0F, -1.0F, 0.0F, -0.0F}) {
    check_scales(WeightFile::open(write_model(directory, {kInf}, {-128, 0}, scale)), 4);
  }
}

}  // namespace
}  // namespace terrace
