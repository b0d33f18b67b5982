#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The main job, from a fresh clone: installs what is missing, builds, lets the default model read a long document and
# continue it, then times a sparse model beside its dense twin. Arguments go to `terrace generate`.
set -euo pipefail
cd "$(dirname "$0")/.."

model=models/default/default.terrace
if [[ ! -f $model ]]; then
  echo "demo.sh: $model is missing: this checkout is incomplete" >&2
  exit 1
fi

scripts/setup.sh
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
fi
mkdir -p build
cmake --preset release >build/release.configure.log || {
  cat build/release.configure.log >&2
  exit 1
}
cmake --build --preset release --target terrace >&2

terrace=build/release/terrace
echo "== $(wc -c <examples/document.txt) bytes of examples/document.txt, then what the model makes of them" >&2
"$terrace" generate -m "$model" -f examples/document.txt -n 200 --seed 1 --stats "$@"
echo >&2
echo "== sparse and dense with equally many parameters and the same precision, in turn, in one run" >&2
"$terrace" bench --preset lm-default --dtype f32,bf16 -n 64 -r 5
