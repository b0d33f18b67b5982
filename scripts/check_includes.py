#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that includes point one way: engine <- {sparse, attention} <- models <- {tools, bench, tests, examples}.

Python likewise: of `train` the importer in tools uses the modules of the model file only, which stand on no other; train uses
nothing of tools.

Also: TBB and oneDNN only in engine and in the tests and benchmarks that measure against them, xsimd only in */kernels/,
and none of the three in a header that is installed. Every source file names its licence in the first line.
Prints each offence as file:line and exits 1 if there is one.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAYERS = ("engine", "sparse", "attention", "models")
ABOVE = ("tools", "bench", "tests", "examples")
MAY_INCLUDE = {
    "engine": {"engine"},
    "sparse": {"engine", "sparse"},
    "attention": {"engine", "attention"},
    "models": set(LAYERS),
    **{folder: {*LAYERS, folder} for folder in ABOVE},
}
# The model file in Python, for importer and training: numpy, but no PyTorch.
MODEL_FILE_MODULES = {"train.atomic_file", "train.container", "train.errors"}
PYTHON_IMPORT = re.compile(r"^\s*(?:from|import)\s+([\w.]+)")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SPDX = "// SPDX-License-Identifier: Apache-2.0"


def third_party(header):
    """The guarded library that `header` belongs to, or None."""
    for library, prefixes in {
        "TBB": ("tbb/", "oneapi/tbb"),
        "oneDNN": ("dnnl", "oneapi/dnnl"),
        "xsimd": ("xsimd/",),
    }.items():
        if header.startswith(prefixes):
            return library
    return None


def may_use(library, path):
    """Whether the file `path` (relative to the root) may include `library`."""
    folder = path.parts[0]
    in_kernels = "kernels" in path.parts[:-1]
    if library == "xsimd":
        return in_kernels
    if path.parts[:2] == ("tests", "engine") or folder == "bench":
        return True
    return folder == "engine" and (path.suffix == ".cpp" or in_kernels)


def offences(path):
    """Yields (line number, text) for every broken rule in the file `path`, relative to the root."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    if not lines or lines[0] != SPDX:
        yield 1, f"the first line must be '{SPDX}'"
    for number, line in enumerate(lines, start=1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quote, header = match.groups()
        library = third_party(header)
        if library and not may_use(library, path):
            yield number, f"{library} must not be included here"
        target = header.split("/")[0]
        if quote == '"' and target in MAY_INCLUDE and target not in MAY_INCLUDE[path.parts[0]]:
            yield number, f"{path.parts[0]} must not include {target}"
        if quote == '"' and "/" not in header:
            yield number, "project headers are included by their path from the root"


def python_offences(path):
    """Yields (line number, text) for every import in the Python file `path` that the folders do not allow."""
    module = ".".join(path.with_suffix("").parts)
    for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), start=1):
        match = PYTHON_IMPORT.match(line)
        if not match:
            continue
        imported = match.group(1)
        folder = imported.split(".")[0]
        if (path.parts[0] == "tools" or module in MODEL_FILE_MODULES) and (
            folder == "torch" or (folder == "train" and imported not in MODEL_FILE_MODULES)
        ):
            yield number, f"{imported} must not be imported here"
        if path.parts[0] == "train" and folder in ("tools", "terrace_import", "import_trax"):
            yield number, "train must not import tools"


def main():
    count = 0
    for folder in MAY_INCLUDE:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in (".h", ".cpp"):
                path = file.relative_to(ROOT)
                for number, text in offences(path):
                    print(f"{path}:{number}: {text}")
                    count += 1
    for folder in ("tools", "train"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            path = file.relative_to(ROOT)
            for number, text in python_offences(path):
                print(f"{path}:{number}: {text}")
                count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
