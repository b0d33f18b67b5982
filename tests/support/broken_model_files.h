// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace terrace::test {

/// A model file that must be refused when it is opened, and a part of the message that must be given.
struct BrokenFile {
  std::string name;
  std::vector<std::byte> bytes;
  std::string message;
};

/// A small valid model file with a tensor of every dtype, a padding, an empty tensor and a scalar.
std::vector<std::byte> valid_model_file();

/// The container around any header text: length, text, spaces up to the alignment, data.
std::vector<std::byte> model_file(std::string_view header, const std::vector<std::byte>& data);

/// The corpus: one file per way of breaking a rule, generated, always the same.
std::vector<BrokenFile> broken_model_files();

}  // namespace terrace::test
