# SPDX-License-Identifier: Apache-2.0
"""terrace init, inspect, quantize and verify."""

import hashlib
import json
import resource
import struct
import subprocess

import numpy as np
import pytest
from conftest import BINARY, DENSE, ROOT, SPARSE, header, run


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


def test_tokenizers_that_cannot_be_are_named(tmp_path):
    config, out = tmp_path / "config.json", tmp_path / "x"
    config.write_text(json.dumps(DENSE))
    vocabulary = tmp_path / "broken.vocab"
    vocabulary.write_bytes(b"\xff")
    for kind in ("subword", "sentencepiece"):
        assert "broken.vocab: " in run("init", "--config", config, "--tokenizer", f"{kind}:{vocabulary}", "-o", out, code=1).err
    config.write_text(json.dumps({**DENSE, "vocab_size": 100}))
    large = ROOT / "tests/golden/tiny_bpe.model"
    message = run("init", "--config", config, "--tokenizer", f"sentencepiece:{large}", "-o", out, code=1).err
    assert "tiny_bpe.model: " in message and "more than the vocabulary of 100" in message
    for offset in ("99999999999", "18446744073709551616", "-1"):
        message = run("init", "--config", config, "--tokenizer", f"bytes:{offset}", "-o", out, code=2).err
        assert "--tokenizer" in message and f"found '{offset}'" in message
    assert not out.exists()


def test_names_that_are_no_utf8(models, tmp_path):
    bad = tmp_path / "bad\udcff.terrace"
    bad.write_bytes(models["sparse"].read_bytes())
    assert run("inspect", bad, "--json").json()["file"].endswith("bad\ufffd.terrace")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(DENSE))
    assert "--name" in run("init", "--config", config, "--name", "\udcff", "-o", tmp_path / "x", code=2).err


def test_dense_is_for_presets_only(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(DENSE))
    run("init", "--config", config, "--dense", "--dtype", "f32", "-o", tmp_path / "x", code=2)


def test_inspect_agrees_with_the_container(models):
    entries = header(models["sparse"])[0]
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
    assert sparse["feed-forward"]["touched_per_token"] == 2 * (d + 2 * d * (f // 16))
    assert sparse["controller"]["touched_per_token"] == 2 * (r * d + f * r + f)
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
    begin = 8 + struct.unpack_from("<Q", content)[0] + header(models["dense"])[0]["decoder.logits.weight"]["data_offsets"][0]
    content[begin : begin + 4] = np.float32("inf").tobytes()
    broken = tmp_path / "broken.terrace"
    broken.write_bytes(content)
    out = tmp_path / "out.terrace"
    out.write_text("precious")
    assert "decoder.logits.weight" in run("quantize", broken, out, "--dtype", "q8", code=1).err
    assert out.read_text() == "precious" and len(list(tmp_path.iterdir())) == 2


# Every kind of weight, with rows that q4 can hold.
WIDE = {
    **SPARSE,
    "d_model": 128,
    "d_ff": 256,
    "decoder": {
        "n_layers": 2,
        "position": {"kind": "learned", "max_len": 256},
        "attention": [{"kind": "multiplicative_conv", "n_modules": 2, "kernel_size": 3, "output": "multconv"}],
        "ff": {"kind": "sparse", "block_size": 16, "d_lowrank": 64, "sru": {"n_layers": 1, "width": 64}},
    },
    "logits": {"kind": "mult", "n_modules": 1},
}
# What docs/model-file.md marks W, by kind of layer.
WEIGHTS = {
    "embedding": ["decoder.embedding"],
    "attention": [f"decoder.blocks.{i}.attention.0.{w}" for i in range(2)
                  for w in ("shared.gate", "shared.proj", "q.weight", "k.weight", "v.weight", "out_mult.gate", "out_mult.proj",
                            "out_conv.weight")],
    "controller": [f"decoder.blocks.{i}.ff.controller.{w}" for i in range(2) for w in ("down", "up")],
    "feed-forward": [f"decoder.blocks.{i}.ff.units" for i in range(2)],
    "sru": [f"decoder.blocks.{i}.ff.sru.{w}.weight" for i in range(2) for w in ("in", "cells.0", "out")],
    "logits": ["decoder.logits.gate", "decoder.logits.proj"],
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    (folder / "config.json").write_text(json.dumps(WIDE))
    path = folder / "wide.terrace"
    run("init", "--config", folder / "config.json", "--tokenizer", "bytes:3", "--seed", 4, "-o", path)
    return path


def dtypes(path):
    return {t["name"]: t["dtype"] for t in run("inspect", path, "--json").json()["tensors"]}


@pytest.mark.parametrize("dtype", ["bf16", "q8", "q4"])
def test_every_kind_of_weight_takes_every_dtype_and_nothing_else_does(wide, tmp_path, dtype):
    path = tmp_path / "model.terrace"
    run("quantize", wide, path, "--dtype", dtype)
    found = dtypes(path)
    weights = {name for names in WEIGHTS.values() for name in names}
    scales = {f"{name}.scale" for name in weights}
    assert {name for name, kind in found.items() if name in weights and kind != dtype} == set()
    assert {name: kind for name, kind in found.items() if name not in weights | scales and kind != "f32"} == {}
    assert (scales <= set(found)) == (dtype in ("q8", "q4"))


@pytest.mark.parametrize("kind", sorted(WEIGHTS))
def test_one_kind_of_layer_in_a_dtype_of_its_own(wide, tmp_path, kind):
    path, made = tmp_path / "mixed.terrace", tmp_path / "made.terrace"
    run("quantize", wide, path, "--dtype", "q8", "--kind", f"{kind}=q4")
    (tmp_path / "config.json").write_text(json.dumps(WIDE))
    run("init", "--config", tmp_path / "config.json", "--dtype", "q8", "--kind", f"{kind}=q4", "-o", made)
    for file in (path, made):
        found = dtypes(file)
        assert {name for name in found if found[name] == "q4"} == set(WEIGHTS[kind])
        assert {name for name in found if found[name] == "q8"} == {n for k, ns in WEIGHTS.items() if k != kind for n in ns}
        assert run("verify", file, "--json").json()["ok"]
        assert run("generate", "-m", file, "--tokens", "-", "-n", 4, "--ids", "--temp", 0, stdin=b"1 2 3").out.split()


def test_kinds_that_there_are_not_are_usage_errors(wide, tmp_path):
    out = tmp_path / "out.terrace"
    for kind, said in (("router=q4", "controller"), ("controller", "KIND=TYPE"), ("controller=q5", "q8"),
                       ("norm=q8", "norm"), ("=q4", "controller"), ("controller=q4=q8", "q4=q8")):
        message = run("quantize", wide, out, "--dtype", "q8", "--kind", kind, code=2).err
        assert said in message and "--kind" in message
        run("init", "--preset", "lm-default", "--dtype", "q8", "--kind", kind, "-o", out, code=2)
    assert not out.exists()


def values(path):
    """Every weight of a file as float64, straight from docs/model-file.md."""
    content = path.read_bytes()
    entries, _ = header(path)
    entries.pop("__metadata__")
    base = 8 + struct.unpack_from("<Q", content)[0]

    def raw(name, dtype):
        begin, end = entries[name]["data_offsets"]
        return np.frombuffer(content[base + begin : base + end], dtype).reshape(entries[name]["shape"])

    def bf16(name):
        return (raw(name, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)

    result = {}
    for name, entry in entries.items():
        if entry["dtype"] == "F32":
            result[name] = raw(name, "<f4").astype(np.float64)
        elif entry["dtype"] == "I8":
            result[name] = raw(name, "i1") * raw(f"{name}.scale", "<f4").astype(np.float64)[..., None]
        elif entry["dtype"] == "U8" and f"{name}.scale" in entries:
            runs = raw(name, "u1").reshape(*entry["shape"][:-1], -1, 32)
            nibbles = np.stack([runs & 15, runs >> 4], axis=-2).astype(np.float64) - 8
            result[name] = (nibbles * bf16(f"{name}.scale").reshape(*nibbles.shape[:-1], 1)).reshape(*entry["shape"][:-1], -1)
    return result


def test_the_report_says_what_the_files_hold(wide, tmp_path):
    path = tmp_path / "out.terrace"
    report = run("quantize", wide, path, "--dtype", "q8", "--kind", "controller=q4", "-t", 1, "--json").json()
    before, after = values(wide), values(path)
    tensors = {t["name"]: t for t in report["tensors"]}
    assert set(tensors) == set(before)
    for name, tensor in tensors.items():
        error = after[name] - before[name]
        assert tensor["from"] == "f32" and tensor["parameters"] == before[name].size
        assert tensor["relative_rms_error"] == pytest.approx(np.sqrt((error**2).sum() / (before[name] ** 2).sum()), rel=1e-6)
        rounding = np.finfo(np.float32).eps * np.abs(before[name]).max()  # of the weights themselves
        assert tensor["largest_error"] == pytest.approx(np.abs(error).max(), rel=1e-6, abs=rounding)
        assert tensor["bytes_before"] == 4 * before[name].size
        assert (tensor["relative_rms_error"] > 0) == (tensor["from"] != tensor["to"])
    kinds = report["kinds"]
    assert kinds["controller"]["relative_rms_error"] > 5 * kinds["feed-forward"]["relative_rms_error"] > 0
    assert kinds["norm"]["relative_rms_error"] == 0
    for key in ("tensors", "parameters", "bytes_before", "bytes_after"):
        assert sum(kind[key] for kind in kinds.values()) == report["total"][key]
    assert report["total"]["bytes_after"] <= path.stat().st_size < 1.2 * report["total"]["bytes_after"]
    assert report == run("quantize", wide, path, "--dtype", "q8", "--kind", "controller=q4", "-t", 2, "--json").json()


def test_the_report_on_stderr_has_one_line_per_weight_of_a_block_or_per_tensor(wide, tmp_path):
    brief = run("quantize", wide, tmp_path / "a.terrace", "--dtype", "q8")
    assert brief.out == b""
    lines = brief.err.splitlines()
    assert any("decoder.blocks.*.ff.units" in line and "f32 -> q8" in line for line in lines)
    assert not any("decoder.blocks.0" in line for line in lines)
    assert any(line.startswith("| feed-forward") for line in lines) and any(line.startswith("| norm") and "kept" in line for line in lines)
    full = run("quantize", wide, tmp_path / "a.terrace", "--dtype", "q8", "--full").err
    assert "decoder.blocks.0.ff.units" in full and "decoder.blocks.1.ff.units" in full


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
