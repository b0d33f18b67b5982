# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/import.md work as they stand there."""

import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_commands_of_the_guide(tmp_path, terrace):
    text = (ROOT / "docs/import.md").read_text(encoding="utf-8")
    section = text.split("## Trying it without a download")[1].split("## ")[0]
    commands = re.search(r"```sh\n(.*?)```", section, re.S).group(1).strip().split("\n")
    assert len(commands) == 7
    for command in commands:
        words = [word.replace("out/", f"{tmp_path}/") for word in shlex.split(command)]
        words[0] = {"python3": sys.executable, "build/release/terrace": str(terrace)}[words[0]]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stderr)
    assert (tmp_path / "small-q8.model").stat().st_size < (tmp_path / "small.model").stat().st_size
