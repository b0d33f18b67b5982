#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All tests, from a fresh clone: installs what is missing, then
#   1. the whole suite of the release build (C++ and Python tests, checks of the tree),
#   2. the C++ suite under AddressSanitizer and UndefinedBehaviorSanitizer,
#   3. thread team and sessions under ThreadSanitizer.
# TERRACE_JOBS sets the number of parallel compilers and tests (default: all cores).
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
jobs=${TERRACE_JOBS:-$(nproc)}
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
fi

# suite PRESET "TARGETS" [ctest arguments]: builds and tests one preset, keeping the output for the summary.
suite() {
  local preset=$1 targets=$2
  shift 2
  echo "== $preset"
  cmake --preset "$preset" -DTERRACE_WERROR=ON >"build/$preset.configure.log" || {
    cat "build/$preset.configure.log"
    return 1
  }
  # shellcheck disable=SC2086  # a list of targets
  cmake --build --preset "$preset" --parallel "$jobs" --target $targets
  ctest --preset "$preset" --parallel "$jobs" "$@" | tee "build/$preset.ctest.log"
}

mkdir -p build
suite release all
suite asan "engine_test sparse_test attention_test models_test" --label-exclude python
suite tsan "engine_test models_test" --label-regex tsan
