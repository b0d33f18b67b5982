// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>

namespace terrace {

/// What kind of thing went wrong; programs branch on it, people read `what()`.
enum class ErrorCode {
  kBadArgument,  ///< an argument of a call or a command-line value
  kBadFile,      ///< unreadable, truncated, or malformed file; tensors that do not fit the configuration
  kBadConfig,    ///< a configuration that describes no model
  kBadToken,     ///< a token id outside the vocabulary
  kContextFull,  ///< no position left in the context
  kOutOfMemory,  ///< memory could not be obtained
  kUnsupported,  ///< well-formed, but not offered by this build or this CPU
  kIo,           ///< reading or writing failed (disk full, permission, ...)
  kCancelled,    ///< the caller asked to stop
  kInternal      ///< the library broke a promise of its own
};

/// The one exception type of the library. The message says what, where, what was expected and what was found.
/// Nothing the caller had is lost when it is thrown (strong guarantee) unless a function says otherwise.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace terrace

/// Checks a condition at the API border in every build; throws Error.
#define TERRACE_CHECK(condition, code, message)                                      \
  do {                                                                               \
    if (!(condition)) throw ::terrace::Error(::terrace::ErrorCode::code, (message)); \
  } while (false)

/// Checks what only a bug of ours can break; debug builds only, so it may be used inside a token.
#ifdef NDEBUG
#define TERRACE_DCHECK(condition) static_cast<void>(0)
#else
#include <cassert>
#define TERRACE_DCHECK(condition) assert(condition)
#endif
