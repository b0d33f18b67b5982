# SPDX-License-Identifier: Apache-2.0
"""How much memory the command line may take: weights + state + 64 MB to generate, next to nothing to make a file."""

import json
import os
import subprocess

import pytest
from conftest import BINARY, run

MEGA = 1 << 20


@pytest.fixture(scope="module", params=["bf16", "q4"])
def dense_preset(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("preset") / "model.terrace"
    run("init", "--preset", "lm-default", "--dense", "--dtype", request.param, "-o", path)
    return path


def test_generate_takes_weights_and_state_and_64_mb(dense_preset, ids):
    arguments = ["--tokens", ids, "-n", 8, "--temp", 0, "--stats", "--json"]
    figures = json.loads(run("generate", "-m", dense_preset, *arguments).err)
    weights = dense_preset.stat().st_size
    assert weights / 4 < figures["peak_rss_bytes"] <= weights + figures["state_bytes"] + 64 * MEGA


def test_init_does_not_hold_what_it_writes(tmp_path):
    """210 MB of weights; the figure for lm-17B (q4, 9.9 GB) is no larger."""
    path = tmp_path / "model.terrace"
    process = subprocess.Popen([BINARY, "init", "--preset", "lm-default", "--dense", "--dtype", "f32", "-o", path])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status  # so that Popen does not wait again
    assert status == 0
    assert path.stat().st_size > 200e6
    assert usage.ru_maxrss * 1024 < 48 * MEGA
