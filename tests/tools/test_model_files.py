# SPDX-License-Identifier: Apache-2.0
"""terrace init, inspect, quantize and verify."""

import hashlib
import json
import resource
import struct
import subprocess

import numpy as np
import pytest
from conftest import BINARY, DENSE, SPARSE, run


def header(path):
    content = path.read_bytes()
    return json.loads(content[8 : 8 + struct.unpack_from("<Q", content)[0]])


@pytest.mark.parametrize("dtype", ["f32", "bf16", "q8", "q4"])
def test_init_makes_a_sound_file_that_runs(models, tmp_path, dtype):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(SPARSE))
    path = tmp_path / "model.terrace"
    run("init", "--config", config, "--tokenizer", "bytes:3", "--dtype", dtype, "--seed", 5, "-o", path)
    assert run("verify", path, "--json").json()["ok"]
    assert run("generate", "-m", path, "-p", "abc", "-n", 8, "--ids").out.split()


def test_init_depends_on_the_seed_and_not_on_threads(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(DENSE))

    def digest(seed, threads):
        path = tmp_path / "model.terrace"
        run("init", "--config", config, "--dtype", "bf16", "--seed", seed, "-t", threads, "-o", path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    assert digest(1, 1) == digest(1, 3)
    assert digest(1, 1) != digest(2, 1)


def test_init_takes_tokenizers(models, tmp_path):
    from conftest import ROOT

    config = tmp_path / "config.json"
    config.write_text(json.dumps({**DENSE, "vocab_size": 2000}))
    path = tmp_path / "model.terrace"
    vocabulary = ROOT / "tests/golden/tiny_bpe.model"
    run("init", "--config", config, "--tokenizer", f"sentencepiece:{vocabulary}", "--dtype", "f32", "-o", path)
    ids = run("tokenize", "-m", path, "-p", "hello world").out
    assert run("detokenize", "-m", path, stdin=ids).out == b"hello world"
    for bad in ("bytes:x", "sentencepiece", "words", "none:1"):
        run("init", "--config", config, "--tokenizer", bad, "--dtype", "f32", "-o", path, code=2)
    config.write_text(json.dumps({**DENSE, "vocab_size": 100}))
    assert "100" in run("init", "--config", config, "--tokenizer", "bytes", "--dtype", "f32", "-o", path, code=1).err


def test_dense_is_for_presets_only(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(DENSE))
    run("init", "--config", config, "--dense", "--dtype", "f32", "-o", tmp_path / "x", code=2)


def test_inspect_agrees_with_the_container(models):
    entries = header(models["sparse"])
    metadata = entries.pop("__metadata__")
    description = run("inspect", models["sparse"], "--json").json()
    tensors = {t["name"]: t for t in description["tensors"]}
    assert set(tensors) == {name for name in entries if not name.startswith("pad.")}
    for name, tensor in tensors.items():
        begin, end = entries[name]["data_offsets"]
        assert tensor["bytes"] == end - begin and tensor["shape"] == entries[name]["shape"] and tensor["dtype"] == "f32"
    assert description["config"]["d_model"] == json.loads(metadata["config"])["d_model"] == 64
    assert description["tokenizer"] == {"kind": "bytes", "offset": 3, "vocab_size": 259}
    parameters = sum(int(np.prod(t["shape"])) for t in tensors.values())
    assert description["total"]["parameters"] == parameters
    assert sum(k["parameters"] for k in description["layer_kinds"].values()) == parameters
    assert 0 < description["total"]["touched_per_token"] < parameters
    assert description["total"]["stored_bytes"] == 4 * parameters


def test_inspect_counts_what_a_token_touches(models):
    """1 of 16 units of the sparse feed-forward part, all of the dense one, one row of the embedding."""
    sparse = run("inspect", models["sparse"], "--json").json()["layer_kinds"]
    d, f, r = 64, 128, 16
    per_layer = r * d + f * r + f + d + 2 * d * (f // 16)
    assert sparse["feed-forward"]["touched_per_token"] == 2 * per_layer
    assert sparse["embedding"]["touched_per_token"] == 2 * d  # a token's row and a position's
    dense = run("inspect", models["dense"], "--json").json()["layer_kinds"]
    assert dense["feed-forward"]["touched_per_token"] == dense["feed-forward"]["parameters"]
    text = run("inspect", models["sparse"]).out.decode()
    for part in ("decoder.embedding", "feed-forward", "multiplicative_conv", "bytes"):
        assert part in text


def logits(model, ids, out):
    run("logits", "-m", model, "--tokens", ids, "-o", out)
    return np.load(out)


@pytest.mark.parametrize("dtype, bound", [("bf16", 0.02), ("q8", 0.05), ("q4", 0.4)])
def test_quantize_keeps_the_logits_close(models, ids, tmp_path, dtype, bound):
    exact = logits(models["dense"], ids, tmp_path / "a.npy")
    out = tmp_path / f"{dtype}.terrace"
    run("quantize", models["dense"], out, "--dtype", dtype)
    assert run("verify", out, "--json").json()["ok"]
    rounded = logits(out, ids, tmp_path / "b.npy")
    assert 0 < np.abs(exact - rounded).max() <= bound * np.abs(exact).max()
    assert out.stat().st_size < models["dense"].stat().st_size
    assert run("tokenize", "-m", out, "-p", "abc").out == run("tokenize", "-m", models["dense"], "-p", "abc").out


def test_quantize_to_the_same_dtype_keeps_every_byte(models, ids, tmp_path):
    once, twice = tmp_path / "once.terrace", tmp_path / "twice.terrace"
    run("quantize", models["sparse"], once, "--dtype", "q4")
    run("quantize", once, twice, "--dtype", "q4")
    assert once.read_bytes() == twice.read_bytes()
    run("quantize", once, once, "--dtype", "q8", "-t", 1)  # in place: the old file is read while the new one is written
    assert run("verify", once, "--json").json()["ok"]


def test_quantize_refuses_broken_input_and_leaves_the_target_alone(models, tmp_path):
    content = bytearray(models["dense"].read_bytes())
    begin = 8 + struct.unpack_from("<Q", content)[0] + header(models["dense"])["decoder.logits.weight"]["data_offsets"][0]
    content[begin : begin + 4] = np.float32("inf").tobytes()
    broken = tmp_path / "broken.terrace"
    broken.write_bytes(content)
    out = tmp_path / "out.terrace"
    out.write_text("precious")
    assert "decoder.logits.weight" in run("quantize", broken, out, "--dtype", "q8", code=1).err
    assert out.read_text() == "precious" and len(list(tmp_path.iterdir())) == 2


def test_init_streams(tmp_path):
    """lm-default takes 210 MB of disk in f32; making it must not take that much memory."""
    path = tmp_path / "model.terrace"
    limit = 150 << 20
    subprocess.run(
        [BINARY, "init", "--preset", "lm-default", "--dense", "--dtype", "f32", "-t", "1", "-o", path],
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )
    assert path.stat().st_size > 200e6
