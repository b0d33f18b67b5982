// SPDX-License-Identifier: Apache-2.0
#include "engine/strict_json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/quote.h"

namespace terrace {
namespace {

/// What is wrong with a text, and how that is told.
struct Rejection {
  std::string_view what;
  ErrorCode code;

  [[noreturn]] void reject(const std::string& problem) const {
    throw Error(code, std::string(what) + ": " + problem);
  }
  [[noreturn]] void reject_at(std::size_t byte) const {
    reject("not valid JSON at byte " + std::to_string(byte));
  }
};

}  // namespace

nlohmann::json parse_strict_json(std::string_view text, std::string_view what, ErrorCode code) {
  const Rejection rejection{what, code};
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::set<std::string>> keys;  // of the objects that are open, outermost first

  const auto watch = [&](int depth, Event event, nlohmann::json& parsed) {
    switch (event) {
      case Event::object_start:
      case Event::array_start:
        if (depth >= kJsonMaxDepth)
          rejection.reject("JSON is nested deeper than " + std::to_string(kJsonMaxDepth) + " levels");
        if (event == Event::object_start) keys.emplace_back();
        break;
      case Event::key: {
        const auto& key = parsed.get_ref<const std::string&>();
        if (!keys.back().insert(key).second)
          rejection.reject("key " + quote_text(key) + " appears twice in one JSON object");
        break;
      }
      case Event::object_end:
        keys.pop_back();
        break;
      default:
        break;
    }
    return true;
  };

  // The parser takes a zero byte for the end of the text and would let anything hide behind it.
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos) rejection.reject_at(zero + 1);
  try {
    return nlohmann::json::parse(text.begin(), text.end(), watch);
  } catch (const nlohmann::json::parse_error& error) {
    // The library's own text quotes the offending token, which may be as long as the file.
    rejection.reject_at(error.byte);
  } catch (const nlohmann::json::exception&) {
    rejection.reject("not valid JSON (a number is out of range)");
  }
}

}  // namespace terrace
