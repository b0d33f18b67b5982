# SPDX-License-Identifier: Apache-2.0
"""terrace moefy: dense layers cut into experts, for every subcommand to use."""

import json
import struct

import numpy as np
import pytest
from conftest import run


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. " * 20)
    return path


@pytest.fixture(scope="module")
def cut(models, text, tmp_path_factory):
    out = tmp_path_factory.mktemp("experts") / "cut.terrace"
    run("moefy", models["dense"], out, "-f", text, "--experts", 16, "--active", 4)
    return out


def test_the_report_tells_what_is_lost(models, text, tmp_path):
    out = tmp_path / "cut.terrace"
    report = run("moefy", models["dense"], out, "-f", text, "--experts", 16, "--active", 4, "--json").json()
    assert (report["n_experts"], report["n_active"], len(report["blocks"])) == (16, 4, 2)
    for block in report["blocks"]:
        assert 0 < block["kept"] <= block["kept_best"] < 1 and 0 < block["output_error"] < 1
        assert 0 < block["active_units"] < 1 and block["tokens"] > 0
    table = run("moefy", models["dense"], out, "-f", text, "--experts", 16, "--active", 4)
    assert table.out == b"" and "output error" in table.err and "16 experts, 4 per token" in table.err
    assert run("verify", out, "--json").json()["ok"]


def test_all_experts_are_the_dense_model(models, cut, ids, tmp_path):
    def logits(model, *more):
        run("logits", "-m", model, "--tokens", ids, "-o", tmp_path / "x.npy", *more)
        return np.load(tmp_path / "x.npy")

    dense = logits(models["dense"])
    whole, part = logits(cut, "--width", 128, "--mode", "step"), logits(cut)
    assert np.abs(whole - dense).max() < 1e-4 * np.abs(dense).max()
    assert np.abs(part - dense).max() > 1e-3 * np.abs(dense).max()
    assert np.array_equal(part, logits(cut, "--mode", "step")) and np.array_equal(part, logits(cut, "--width", 32))


def test_inspect_counts_the_active_experts(models, cut):
    d, f, active, experts = 64, 128, 32, 16
    of = run("inspect", cut, "--json").json()["layer_kinds"]
    assert of["controller"]["touched_per_token"] == 2 * (experts * d + experts)
    assert of["feed-forward"]["touched_per_token"] == 2 * (2 * active * d + active + 4 * d + d)
    dense = run("inspect", models["dense"], "--json").json()["layer_kinds"]
    assert of["feed-forward"]["parameters"] == dense["feed-forward"]["parameters"] + 2 * experts * d


def test_few_experts_draft_for_all(models, cut):
    plain = run("generate", "-m", cut, "-p", "The quick", "-n", 30, "--temp", 0, "--width", 128).out
    drafted = run("generate", "-m", cut, "-p", "The quick", "-n", 30, "--temp", 0, "--width", 128, "--draft", 32).out
    assert plain == drafted


def test_a_copy_in_other_dtypes(cut, tmp_path):
    out = tmp_path / "q4.terrace"
    run("quantize", cut, out, "--dtype", "q4")
    run("generate", "-m", out, "-p", "The quick", "-n", 5)


def test_without_a_text_a_warning_says_so(models, tmp_path):
    out = tmp_path / "cut.terrace"
    message = run("moefy", models["dense"], out, "--experts", 16).err
    assert message.count("terrace: warning: without a text") == 1
    run("generate", "-m", out, "-p", "a", "-n", 3)


@pytest.mark.parametrize(
    "arguments, code, part",
    [
        (["--experts", 7], 2, "--experts: expected a divisor of the 128 units of block 0, found 7"),
        (["--experts", 16, "--active", 17], 2, "--active: expected at most the 16 experts, found 17"),
        (["--experts", 0], 2, "--experts"),
        (["--seed", -1], 2, "--seed"),
        (["--dtype", "q5"], 2, "--dtype"),
        (["-f", "/dev/null"], 1, "at least 256 tokens, found 0"),
        (["-f", "missing.txt"], 1, "missing.txt"),
        (["-f", "a", "--tokens", "b"], 2, "excludes"),
    ],
)
def test_wrong_arguments(models, tmp_path, arguments, code, part):
    out = tmp_path / "out.terrace"
    out.write_text("precious")
    assert part in run("moefy", models["dense"], out, *arguments, code=code).err
    assert out.read_text() == "precious"


def test_models_it_cannot_cut(models, tmp_path):
    out = tmp_path / "out.terrace"
    assert "dense with activation relu" in run("moefy", models["sparse"], out, code=1).err
    content = bytearray(models["dense"].read_bytes())
    size = struct.unpack_from("<Q", content)[0]
    at = json.loads(content[8 : 8 + size])["decoder.blocks.1.ff.w1.weight"]["data_offsets"][0]
    content[8 + size + at : 12 + size + at] = np.float32("nan").tobytes()
    broken = tmp_path / "nan.terrace"
    broken.write_bytes(content)
    assert "decoder.blocks.1.ff.w1.weight" in run("moefy", broken, out, code=1).err
    assert not out.exists()


def test_a_full_disk(models, text):
    assert "/dev/full" in run("moefy", models["dense"], "/dev/full", "-f", text, code=1).err
