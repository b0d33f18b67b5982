#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fails if clang-format (.clang-format) would change a tracked source file. `--fix` changes them instead.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=(--dry-run --Werror)
[[ ${1:-} == --fix ]] && mode=(-i)
git ls-files -z -- '*.h' '*.cpp' | xargs -0 --no-run-if-empty clang-format "${mode[@]}"
