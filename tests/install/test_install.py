# SPDX-License-Identifier: Apache-2.0
"""`cmake --install` gives a package that a program outside the tree can build against."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("TERRACE_BINARY", ROOT / "build/release/terrace")).parent
MODEL = ROOT / "models/default/default.terrace"

# Every installed header in one translation unit: one that needs a header which is not installed does not compile.
EVERY_HEADER = """cmake_minimum_required(VERSION 3.24)
project(EveryHeader LANGUAGES CXX)
find_package(Terrace REQUIRED)
add_library(every_header OBJECT every_header.cpp)
target_link_libraries(every_header PRIVATE Terrace::models)
"""


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", BUILD, "--prefix", folder)
    return folder


def build(source, prefix, binary):
    run("cmake", "-G", "Ninja", "-S", source, "-B", binary, f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Debug")
    run("cmake", "--build", binary)


def test_the_examples_build_and_run_against_the_installed_package(prefix, tmp_path):
    build(ROOT / "examples", prefix, tmp_path)
    text = run(tmp_path / "example_generate", MODEL, "Once upon a time", 8)
    assert text.strip()
    assert run(prefix / "bin/terrace", "--version").startswith("terrace ")


def test_every_installed_header_compiles_with_what_is_installed(prefix, tmp_path):
    include = prefix / "include/terrace"
    headers = sorted(path.relative_to(include) for path in include.rglob("*.h"))
    assert {"models", "engine", "sparse", "attention"} == {path.parts[0] for path in headers}
    (tmp_path / "every_header.cpp").write_text("".join(f'#include "{path}"\n' for path in headers))
    (tmp_path / "CMakeLists.txt").write_text(EVERY_HEADER)
    build(tmp_path, prefix, tmp_path / "out")
    for path in headers:
        text = (include / path).read_text()
        assert not any(f"#include <{library}" in text for library in ("tbb/", "xsimd/", "oneapi/", "dnnl")), path
