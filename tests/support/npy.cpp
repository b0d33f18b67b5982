// SPDX-License-Identifier: Apache-2.0
#include "tests/support/npy.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace terrace::test {
namespace {

template <class T>
Array<T> read_npy(const std::string& path, const std::string& descr) {
  CAPTURE(path);
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file);
  std::stringstream buffer;
  buffer << file.rdbuf();
  const std::string bytes = buffer.str();
  constexpr std::size_t kPreamble = 10;  // magic, version 1.0, 16-bit header length
  REQUIRE(bytes.size() > kPreamble);
  REQUIRE(bytes.compare(0, 8, std::string("\x93NUMPY\x01\x00", 8)) == 0);
  const std::size_t header_bytes =
      static_cast<unsigned char>(bytes[8]) + 256U * static_cast<unsigned char>(bytes[9]);
  const std::string header = bytes.substr(kPreamble, header_bytes);
  REQUIRE(header.find("'descr': '" + descr + "'") != std::string::npos);
  REQUIRE(header.find("'fortran_order': False") != std::string::npos);
  const char* shape = header.c_str() + header.find("'shape': (") + 10;
  char* end = nullptr;
  Array<T> array;
  array.rows = std::strtoul(shape, &end, 10);
  array.cols = *end == ',' && end[1] == ' ' ? std::strtoul(end + 2, nullptr, 10) : 1;
  array.values.resize(array.rows * array.cols);
  REQUIRE(bytes.size() == kPreamble + header_bytes + array.values.size() * sizeof(T));
  bytes.copy(reinterpret_cast<char*>(array.values.data()), array.values.size() * sizeof(T),
             kPreamble + header_bytes);
  return array;
}

}  // namespace

Array<float> read_npy_f32(const std::string& path) { return read_npy<float>(path, "<f4"); }
Array<std::int32_t> read_npy_i32(const std::string& path) { return read_npy<std::int32_t>(path, "<i4"); }

}  // namespace terrace::test
