// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/quote.h"
#include "models/config_names.h"

namespace terrace {

[[noreturn]] inline void bad_config(const std::string& message) {
  throw Error(ErrorCode::kBadConfig, "model configuration: " + message);
}

/// One JSON object that must be read completely: keys nobody asked for are an error in finish().
class ObjectReader {
 public:
  ObjectReader(const nlohmann::json& json, std::string path) : json_(json), path_(std::move(path)) {
    if (!json.is_object())
      bad_config(fmt::format("{} must be an object", path_.empty() ? "the whole" : path_));
  }

  bool has(const char* key) {
    seen_.insert(key);
    return json_.contains(key) && !json_.at(key).is_null();
  }
  std::string path_of(const char* key) const { return path_.empty() ? key : path_ + "." + key; }
  const nlohmann::json& at(const char* key) {
    if (!has(key)) bad_config("missing key '" + path_of(key) + "'");
    return json_.at(key);
  }
  ObjectReader object(const char* key) { return {at(key), path_of(key)}; }

  void read(const char* key, std::uint32_t& value) {
    if (has(key)) value = to_u32(json_.at(key), path_of(key));
  }
  void read(const char* key, std::int32_t& value) {
    if (!has(key)) return;
    const nlohmann::json& j = json_.at(key);
    if (!j.is_number_integer() || j.get<std::int64_t>() < -1 || j.get<std::int64_t>() > kMaxSize) {
      bad_config(fmt::format("'{}' must be a token id or -1, found {}", path_of(key), excerpt(j)));
    }
    value = j.get<std::int32_t>();
  }
  void read(const char* key, std::optional<std::uint32_t>& value) {
    if (has(key)) value = to_u32(json_.at(key), path_of(key));
  }
  void read(const char* key, bool& value) {
    if (!has(key)) return;
    if (!json_.at(key).is_boolean()) {
      bad_config(fmt::format("'{}' must be true or false, found {}", path_of(key), excerpt(json_.at(key))));
    }
    value = json_.at(key).get<bool>();
  }
  void read(const char* key, float& value) {
    if (!has(key)) return;
    const nlohmann::json& j = json_.at(key);
    if (!j.is_number() || std::abs(j.get<double>()) > std::numeric_limits<float>::max()) {
      bad_config(fmt::format("'{}' must be a number that a float holds, found {}", path_of(key), excerpt(j)));
    }
    value = j.get<float>();
  }
  void read(const char* key, std::vector<std::uint32_t>& values) {
    if (!has(key)) return;
    const nlohmann::json& j = json_.at(key);
    if (!j.is_array() || j.size() > kMaxList) {
      bad_config(fmt::format("'{}' must be a list of at most {} sizes", path_of(key), kMaxList));
    }
    values.clear();
    for (const nlohmann::json& item : j) values.push_back(to_u32(item, path_of(key)));
  }
  template <class Enum, std::size_t N>
  void read(const char* key, const std::array<EnumName<Enum>, N>& names, Enum& value) {
    if (!has(key)) return;
    const nlohmann::json& j = json_.at(key);
    std::string expected;
    for (const auto& entry : names) {
      if (j.is_string() && j.get_ref<const std::string&>() == entry.name) {
        value = entry.value;
        return;
      }
      expected += std::string(expected.empty() ? "" : ", ") + entry.name;
    }
    bad_config(fmt::format("'{}' must be one of {}; found {}", path_of(key), expected, excerpt(j)));
  }

  void finish() const {
    for (const auto& item : json_.items()) {
      if (!seen_.contains(item.key())) {
        bad_config(fmt::format("unknown key {}{}: a misspelling, or the file needs a newer engine",
                               quote_text(item.key()), path_.empty() ? "" : " in '" + path_ + "'"));
      }
    }
  }

  static constexpr std::int64_t kMaxSize = std::numeric_limits<std::int32_t>::max();
  static constexpr std::size_t kMaxList = 4096;

 private:
  static std::string excerpt(const nlohmann::json& j) {
    if (j.is_string()) return quote_text(j.get_ref<const std::string&>());
    return j.is_structured() ? std::string(j.is_array() ? "a list" : "an object") : j.dump();
  }
  static std::uint32_t to_u32(const nlohmann::json& j, const std::string& path) {
    if (!j.is_number_integer() || j.get<std::int64_t>() < 0 || j.get<std::int64_t>() > kMaxSize) {
      bad_config(fmt::format("'{}' must be an integer from 0 to {}, found {}", path, kMaxSize, excerpt(j)));
    }
    return static_cast<std::uint32_t>(j.get<std::int64_t>());
  }

  const nlohmann::json& json_;
  std::string path_;
  std::set<std::string> seen_;
};

}  // namespace terrace
