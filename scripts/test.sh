#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All tests, from a fresh clone: installs what is missing, then
#   1. the whole suite of the release build (C++ and Python tests, checks of the tree),
#   2. the C++ suite with each other instruction set that this CPU has,
#   3. the C++ suite under AddressSanitizer and UndefinedBehaviorSanitizer,
#   4. thread team and sessions under ThreadSanitizer.
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

read -r -a usable <<<"$(build/release/terrace --version | sed -n 's/.*usable here: *\(.*\))/\1/p')"
echo "== instruction sets of this CPU, so tested: ${usable[*]}"
for isa in "${usable[@]::${#usable[@]}-1}"; do # the best one is what the suite has just run with
  echo "== release, TERRACE_ISA=$isa"
  TERRACE_ISA=$isa ctest --preset release --parallel "$jobs" --label-exclude python | tee "build/release-$isa.ctest.log"
done

suite asan "engine_test sparse_test attention_test models_test" --label-exclude python
suite tsan "engine_test models_test" --label-regex tsan
