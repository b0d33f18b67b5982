# SPDX-License-Identifier: Apache-2.0
"""Paths to the importer, the oracle and, where it is built, the `terrace` binary."""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "tools", ROOT / "tests", ROOT / "tests/import"):
    sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def terrace():
    """Path of the binary: TERRACE_BINARY, else build/release/terrace."""
    binary = pathlib.Path(os.environ.get("TERRACE_BINARY", ROOT / "build/release/terrace"))
    if not binary.exists():
        pytest.skip(f"{binary} is not built: imported models are not run")
    return binary
