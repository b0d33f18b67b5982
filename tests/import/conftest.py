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


@pytest.fixture
def refuse_folder(tmp_path, capsys):
    """refuse_folder(part of the message, flags): imports the model in tmp_path, expects one line and no file."""
    import import_hf  # found by the path above

    def call(message, *flags):
        out = tmp_path / "out.terrace"
        assert import_hf.main(["--model", str(tmp_path), "--out", str(out), *(flags or ["--no-tokenizer"])]) == 1
        error = capsys.readouterr().err
        assert message in error, error
        assert error.startswith("import_hf: ") and error.count("\n") == 1
        assert not out.exists() and not list(tmp_path.glob("*.part"))

    return call
