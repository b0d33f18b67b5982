// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <type_traits>

namespace terrace {

/// A reference to a callable without arguments, or to none; must not outlive it. Costs no allocation.
class TaskRef {
 public:
  TaskRef() = default;
  template <class F>
  requires std::is_invocable_v<const F&> &&(!std::is_same_v<F, TaskRef>)
      TaskRef(const F& task) noexcept  // NOLINT(google-explicit-constructor): passed where the task is
      : call_([](const void* f) { (*static_cast<const F*>(f))(); }), task_(std::addressof(task)) {}

  explicit operator bool() const noexcept { return task_ != nullptr; }
  void operator()() const { call_(task_); }

 private:
  void (*call_)(const void* task) = nullptr;
  const void* task_ = nullptr;
};

}  // namespace terrace
