# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/import.md work as they stand there."""

import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import make_small_triple
import pytest
from test_import_published import COPY

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/import.md").read_text(encoding="utf-8")


def commands_below(title):
    """Command lines of the first shell block of a section."""
    block = re.search(r"```sh\n(.*?)```", GUIDE.split(f"## {title}\n")[1], re.S).group(1)
    return block.replace("\\\n", " ").strip().split("\n")


def run(command, folder, terrace):
    """Runs a command line in `folder`, its scripts and the binary from where they are; returns what it printed."""
    words = shlex.split(command)
    words[0] = {"python3": sys.executable, "terrace": terrace, "build/release/terrace": terrace}[words[0]]
    words = [str(ROOT / word) if str(word).endswith(".py") else str(word) for word in words]
    words, to = (words[:-2], words[-1]) if words[-2] == ">" else (words, None)
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)
    if to:
        (folder / to).write_text(done.stdout)
    return done


def test_commands_of_the_small_triple(tmp_path, terrace):
    commands = commands_below("Trying it without a download")
    assert len(commands) == 9
    done = {command: run(command, tmp_path, terrace) for command in commands}
    assert (tmp_path / "out/small-q8.terrace").stat().st_size < (tmp_path / "out/small.terrace").stat().st_size
    by_text, by_ids = [result for command, result in done.items() if " generate " in command]
    assert by_text.stdout == by_ids.stdout and by_text.stderr == ""
    assert all(re.search(f"^{part} ", by_ids.stderr, re.M) for part in ("encoder", "prefill", "decode"))


def test_commands_of_the_published_files_on_the_small_triple(tmp_path, terrace):
    make_small_triple.write(tmp_path)
    for here, published in (
        ("model.pkl.gz", "model_200000.pkl.gz"),
        ("model.weights.npy.gz", "model_200000.weights.npy.gz"),
        ("small.subword", "en_16k.subword"),
    ):
        (tmp_path / here).rename(tmp_path / published)
    (tmp_path / "paper.txt").write_text("the cats, the cat and the cats " * 20)
    commands = commands_below("The published Terraformer")
    assert len(commands) == 3
    *_, summary = [run(command, tmp_path, terrace) for command in commands]
    assert summary.stdout.strip() and re.search(r"^decode +\d+ tokens", summary.stderr, re.M)


@pytest.mark.skipif(not COPY.exists(), reason="SKIP_WITHOUT_SHARED: Trax's trained checkpoint is not on this machine")
def test_the_command_for_a_checkpoint_without_gin_file(tmp_path, terrace):
    shutil.copy(COPY, tmp_path)
    (command,) = commands_below("Where settings come from")
    run(command, tmp_path, terrace)
    run("terrace verify copy.terrace", tmp_path, terrace)
