#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fails if clang-tidy (.clang-tidy) finds anything in the library and the tools, headers included. Needs a configured
# build for its compile commands: cmake --preset release. A file takes some ten seconds.
#   check_tidy.sh [FILE...]     default: every .cpp file of the five folders but kernels
# TERRACE_JOBS sets the number of parallel processes (default: all cores); BUILD the build folder (build/release).
set -euo pipefail
cd "$(dirname "$0")/.."

build=${BUILD:-build/release}
if [[ ! -f $build/compile_commands.json ]]; then
  echo "check_tidy.sh: no $build/compile_commands.json; run cmake --preset release" >&2
  exit 2
fi
files=("$@")
if ((${#files[@]} == 0)); then
  # Kernels are written in intrinsics and pointer arithmetic, which most checks are against.
  mapfile -t files < <(git ls-files -- '*.cpp' | grep -E '^(engine|sparse|attention|models|tools)/' | grep -v /kernels/)
fi
# The compile commands are GCC's: clang does not know all of its warnings.
printf '%s\0' "${files[@]}" |
  xargs -0 -n 1 -P "${TERRACE_JOBS:-$(nproc)}" \
    clang-tidy -p "$build" --quiet --warnings-as-errors='*' --extra-arg=-Wno-unknown-warning-option
