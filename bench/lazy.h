// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <utility>

namespace terrace::bench {

/// Made when it is first asked for: a figure that is filtered out costs nothing.
template <class T>
class Lazy {
 public:
  explicit Lazy(std::function<T()> make) : make_(std::move(make)) {}
  T& get() {
    if (!value_) value_.emplace(make_());
    return *value_;
  }

 private:
  std::function<T()> make_;
  std::optional<T> value_;
};

}  // namespace terrace::bench
